//! The noise floor: one program measured twice under two names.

use dpsgd_core::Mode;

use crate::charts::{heading, ratio, subtitle};
use crate::compared::Compared;
use crate::figure::{Figure, Group, Row, title};
use crate::scene::Scene;
use crate::view::{self, View};

pub fn draw(view: &View) -> Scene {
    let rest = "The same program measured twice: what its two measurements differ by is noise.";
    let mut figure = Figure::new(title(view, "noise floor", None), &subtitle(view, rest));
    let modes = [Mode::Private, Mode::NonPrivate];
    let row = |mode: Mode, size: usize| {
        let (original, compared) = view.noise(mode, size)?;
        let name = format!("{}, {}", original.contender(), view::mode(mode));
        Some((Row { look: view.look(&original.contender()), name, figure: compared.figure() }, compared))
    };
    let group = |size: usize| Group {
        heading: heading(view, size),
        rows: modes.into_iter().filter_map(|mode| row(mode, size)).collect(),
    };
    let groups: Vec<Group<Compared>> =
        view.batch_sizes().into_iter().map(group).filter(|group| !group.rows.is_empty()).collect();
    if groups.is_empty() {
        figure.note("This run measured no contender twice.");
    } else {
        ratio::draw_rows(
            &mut figure,
            &groups,
            "second over first measurement, log scale; the line at 1× is no difference",
        );
    }
    let caption = format!(
        "Marks: ratio of warm epochs, paired by round; {}. {}",
        view.replicates(),
        ratio::bands(groups.iter().flat_map(|group| &group.rows).map(|(_, compared)| compared))
    );
    figure.finish(&[], &caption, &view.machine())
}
