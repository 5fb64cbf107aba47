//! Whose turn it is among processes that are alive together: as pure functions of what each has done.
//!
//! All members go through the same levels, and at each level a member takes turns until that share of its work is done.
//! So all have done the same share of their work at any time, whether their epochs take a tenth of a millisecond or a
//! second, and whatever slows the machine for a while slows all alike. Levels come in pairs, the second in the reversed
//! order of the first (A B B A), so that a drift favours nobody.

use super::plan::order_of_round;

/// How long a turn is meant to be: long against waking a process up and against refilling its caches, short against the
/// seconds in which a machine's neighbours come and go.
const TURN_S: f64 = 0.025;
/// Epochs of one turn at most: a reply to the runner has all their times.
const MOST_EPOCHS: f64 = 10_000.0;

/// What is asked of every member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Seconds of warm epochs.
    pub seconds: f64,
    /// Epochs, the first included.
    pub epochs: usize,
}

impl Work {
    /// Levels in which it is done.
    pub fn levels(&self) -> usize {
        ((self.seconds / TURN_S).ceil() as usize).clamp(2, 1_000)
    }

    /// The share that is done, 1 and more for all of it, after these epochs, of which those from `warm_from` on are warm.
    pub fn done(&self, epochs_s: &[f64], warm_from: usize) -> f64 {
        let warm: f64 = epochs_s.iter().skip(warm_from).sum();
        let of_seconds = if self.seconds > 0.0 { warm / self.seconds } else { 1.0 };
        let of_epochs = epochs_s.len() as f64 / self.epochs.max(1) as f64;
        of_seconds.min(of_epochs)
    }
}

/// Epochs of the next turn, if one takes `epoch_s`.
pub fn epochs_of_turn(epoch_s: f64) -> u32 {
    // As many as fit; a slow epoch is a turn by itself.
    (TURN_S / epoch_s.max(1e-9)).floor().clamp(1.0, MOST_EPOCHS) as u32
}

/// The order of `members` at a level.
pub fn order_of_level(members: usize, seed: u64, stream: u64, level: usize) -> Vec<usize> {
    order_of_round(members, seed, stream, level)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a whole round with members whose epochs take these times; who was timed, turn by turn, and for how long.
    fn played(work: Work, epochs_s: &[f64]) -> Vec<(usize, f64)> {
        let mut done: Vec<Vec<f64>> = epochs_s.iter().map(|epoch_s| vec![*epoch_s]).collect();
        let mut turns = Vec::new();
        for level in 1..=work.levels() {
            for member in order_of_level(epochs_s.len(), 1, 0, level) {
                while work.done(&done[member], 1) < level as f64 / work.levels() as f64 {
                    let epochs = epochs_of_turn(epochs_s[member]);
                    done[member].extend(std::iter::repeat_n(epochs_s[member], epochs as usize));
                    turns.push((member, epochs_s[member] * f64::from(epochs)));
                }
            }
        }
        turns
    }

    #[test]
    fn every_member_has_its_epochs_and_its_seconds_in_the_end_and_hardly_more() {
        let work = Work { seconds: 1.0, epochs: 5 };
        let epochs_s = [0.0002, 0.004, 0.03, 0.4, 2.0];
        let turns = played(work, &epochs_s);
        for (member, epoch_s) in epochs_s.iter().enumerate() {
            let total: f64 = turns.iter().filter(|turn| turn.0 == member).map(|turn| turn.1).sum();
            let wanted = work.seconds.max(4.0 * epoch_s);
            assert!((wanted - 1e-6..wanted + TURN_S + epoch_s).contains(&total), "{epoch_s}: {total}");
        }
    }

    #[test]
    fn members_are_at_the_same_share_of_their_work_at_any_time() {
        let work = Work { seconds: 1.0, epochs: 5 };
        let epochs_s = [0.0002, 0.03, 0.1];
        let mut total = [0.0; 3];
        for (member, seconds) in played(work, &epochs_s) {
            total[member] += seconds;
            let apart = total.iter().copied().fold(0.0, f64::max) - total.iter().copied().fold(1.0, f64::min);
            // The longest turn is the coarsest that shares can be.
            assert!(apart <= 0.1 + 2.0 * TURN_S, "{total:?}");
        }
    }

    #[test]
    fn an_even_level_is_the_reverse_of_the_one_before() {
        let mut order = order_of_level(6, 1, 3, 2);
        order.reverse();
        assert_eq!(order_of_level(6, 1, 3, 3), order);
    }

    #[test]
    fn a_turn_is_short_and_has_at_least_one_epoch() {
        assert_eq!([2.0, 0.02, 0.0101, 0.0001].map(epochs_of_turn), [1, 1, 2, 250]);
        assert_eq!(epochs_of_turn(1e-12), 10_000);
    }
}
