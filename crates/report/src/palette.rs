//! One colour and one shape per contender, the same in every plot.

use std::collections::BTreeMap;

use crate::scene::{Color, Point, Scene, WHITE};

/// Colours that people with any colour vision tell apart: Okabe and Ito's without their yellow, which white paper
/// swallows, then the dark ones of Tol's "muted" scheme.
const COLORS: [Color; 12] = [
    Color::new(0x00, 0x72, 0xb2),
    Color::new(0xd5, 0x5e, 0x00),
    Color::new(0x00, 0x9e, 0x73),
    Color::new(0xcc, 0x79, 0xa7),
    Color::new(0xe6, 0x9f, 0x00),
    Color::new(0x56, 0xb4, 0xe9),
    Color::new(0x33, 0x33, 0x33),
    Color::new(0x88, 0x22, 0x55),
    Color::new(0x99, 0x99, 0x33),
    Color::new(0x33, 0x22, 0x88),
    Color::new(0x11, 0x77, 0x33),
    Color::new(0xaa, 0x44, 0x99),
];

const SHAPES: [Shape; 5] = [Shape::Disc, Shape::Square, Shape::Diamond, Shape::Up, Shape::Down];

/// The contenders that come with the project, so that they look the same whatever else runs beside them.
const KNOWN: [&str; 9] =
    ["fused", "jax", "opacus", "naive", "batched:expanded", "batched:captured", "batched", "pytorch", "tensorflow"];

/// Shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    Disc,
    Square,
    Diamond,
    Up,
    Down,
}

/// How a contender looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    pub color: Color,
    pub shape: Shape,
}

/// The look of each of `names`. It depends on the set of names alone, and for known names on nothing: each gets the slot
/// that its name hashes to, or the next free one; shapes change with the slot, and once colours repeat (after twelve
/// names) a colour comes back with another shape.
pub fn looks<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, Look> {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    let mut taken: Vec<usize> = names.iter().filter_map(|name| known(name)).collect();
    let mut looks = BTreeMap::new();
    for name in names {
        let slot = known(name).unwrap_or_else(|| {
            let slot = free_slot(hash(name), &taken);
            taken.push(slot);
            slot
        });
        looks.insert(name.to_string(), look(slot));
    }
    looks
}

fn known(name: &str) -> Option<usize> {
    KNOWN.iter().position(|known| *known == name)
}

/// The first slot from `hash` on that is free, in the first round of colours in which one is.
fn free_slot(hash: u64, taken: &[usize]) -> usize {
    let start = (hash % COLORS.len() as u64) as usize;
    let slots = (0..).flat_map(|round| (0..COLORS.len()).map(move |i| (round, (start + i) % COLORS.len())));
    slots.map(|(round, i)| round * COLORS.len() + i).find(|slot| !taken.contains(slot)).expect("rounds never end")
}

fn look(slot: usize) -> Look {
    let round = slot / COLORS.len();
    Look { color: COLORS[slot % COLORS.len()], shape: SHAPES[(slot % COLORS.len() + round) % SHAPES.len()] }
}

/// FNV-1a: a hash that no release of Rust changes.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Look {
    /// The mark, filled, with a white rim that keeps overlapping ones apart. All shapes cover about the same area.
    pub fn mark(self, scene: &mut Scene, at: Point, radius: f64) {
        self.shape.fill(scene, at, radius + 1.0, WHITE);
        self.shape.fill(scene, at, radius, self.color);
    }
}

impl Shape {
    fn fill(self, scene: &mut Scene, (x, y): Point, r: f64, color: Color) {
        let around = |offsets: &[Point]| offsets.iter().map(|(dx, dy)| (x + dx, y + dy)).collect::<Vec<_>>();
        match self {
            Self::Disc => scene.disc((x, y), r, color),
            Self::Square => {
                let s = 0.9 * r;
                scene.area(&around(&[(-s, -s), (s, -s), (s, s), (-s, s)]), color);
            }
            Self::Diamond => {
                let s = 1.25 * r;
                scene.area(&around(&[(0.0, -s), (s, 0.0), (0.0, s), (-s, 0.0)]), color);
            }
            Self::Up => {
                scene.area(&around(&[(0.0, -1.3 * r), (1.2 * r, 0.85 * r), (-1.2 * r, 0.85 * r)]), color);
            }
            Self::Down => {
                scene.area(&around(&[(0.0, 1.3 * r), (1.2 * r, -0.85 * r), (-1.2 * r, -0.85 * r)]), color);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_contender_looks_the_same_whatever_runs_beside_it() {
        let alone = looks(["jax"]);
        let names: Vec<String> = (0..30).map(|i| format!("mine-{i}")).chain(["jax".into(), "naive".into()]).collect();
        let among = looks(names.iter().map(String::as_str));
        assert_eq!(alone["jax"], among["jax"]);
    }

    #[test]
    fn order_and_repetition_of_names_change_nothing() {
        let names = ["b", "a", "opacus", "c:variant", "a"];
        let mut reversed = names;
        reversed.reverse();
        assert_eq!(looks(names), looks(reversed));
    }

    #[test]
    fn no_two_of_sixty_contenders_look_alike_and_twelve_share_no_colour() {
        let names: Vec<String> = (0..60).map(|i| format!("contender-{i}")).collect();
        let all = looks(names.iter().map(String::as_str));
        for (i, a) in all.values().enumerate() {
            assert!(all.values().skip(i + 1).all(|b| a != b));
        }
        let few = looks(names.iter().take(12).map(String::as_str));
        for (i, a) in few.values().enumerate() {
            assert!(few.values().skip(i + 1).all(|b| a.color != b.color));
        }
    }
}
