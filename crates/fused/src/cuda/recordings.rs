//! The recordings of the shapes that steps had lately.

/// How many shapes are remembered.
const MOST: usize = 16;

/// What was recorded for each shape, the one used last in the end.
pub struct Recordings<S, R>(Vec<(S, Option<R>)>);

/// What to do with a step.
pub enum Take<'a, R, E> {
    /// Replay this.
    Replay(&'a R),
    /// Start its launches one by one, as it is the first of its shape.
    Launch,
    /// The same, as it can't be recorded, and why.
    CannotRecord(E),
}

impl<S: PartialEq, R> Recordings<S, R> {
    /// None yet.
    pub fn new() -> Self {
        Recordings(Vec::new())
    }

    /// Forgets all: what they refer to has changed.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// For a step of this shape. The first is not recorded: it may be the only one, and a driver that loads kernels when
    /// they are first started can do so.
    pub fn of<E>(&mut self, shape: S, record: impl FnOnce() -> Result<R, E>) -> Take<'_, R, E> {
        let known = self.0.iter().position(|(known, _)| *known == shape);
        let (shape, recording) = match known {
            Some(place) => self.0.remove(place),
            None => (shape, None),
        };
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        let (recording, error) = match recording {
            None if known.is_some() => record().map_or_else(|error| (None, Some(error)), |made| (Some(made), None)),
            recording => (recording, None),
        };
        self.0.push((shape, recording));
        match (self.0.last(), error) {
            (Some((_, Some(recording))), _) => Take::Replay(recording),
            (_, Some(error)) => Take::CannotRecord(error),
            _ => Take::Launch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Recordings, Take};

    /// What is done: a recording's number, or a word.
    fn done(recordings: &mut Recordings<usize, usize>, shape: usize, record: Option<usize>) -> String {
        match recordings.of(shape, || record.ok_or("cannot")) {
            Take::Replay(recording) => recording.to_string(),
            Take::Launch => "launch".into(),
            Take::CannotRecord(error) => error.into(),
        }
    }

    #[test]
    fn a_shape_is_recorded_when_it_comes_again() {
        let mut recordings = Recordings::new();
        let all = [(7, 1), (8, 2), (7, 3), (7, 4), (8, 5), (7, 6)];
        let done = all.map(|(shape, record)| done(&mut recordings, shape, Some(record)));
        assert_eq!(done, ["launch", "launch", "3", "3", "5", "3"]);
    }

    #[test]
    fn the_shape_that_was_used_least_lately_is_forgotten() {
        let mut recordings = Recordings::new();
        for shape in (0..MOST).chain(0..MOST) {
            done(&mut recordings, shape, Some(shape));
        }
        assert_eq!(done(&mut recordings, 0, None), "0");
        // It takes the place of 1.
        assert_eq!(done(&mut recordings, 100, None), "launch");
        assert_eq!(recordings.0.len(), MOST);
        assert_eq!(done(&mut recordings, 0, None), "0");
        assert_eq!(done(&mut recordings, 2, None), "2");
        assert_eq!(done(&mut recordings, 1, None), "launch");
        assert_eq!(recordings.0.len(), MOST);
        recordings.clear();
        assert_eq!(done(&mut recordings, 2, None), "launch");
    }

    #[test]
    fn what_cannot_be_recorded_is_told_from_what_is_new() {
        let mut recordings = Recordings::new();
        let done = [0, 0, 0].map(|shape| done(&mut recordings, shape, None));
        assert_eq!(done, ["launch", "cannot", "cannot"]);
    }
}
