//! A few things done at a time, by threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What `work` makes of every item, in the order of the items; at most `at_once` are at work at the same time. A panic in
/// `work` is passed on.
pub fn map<T: Send, R: Send>(items: Vec<T>, at_once: usize, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let places: Vec<Mutex<(Option<T>, Option<R>)>> =
        items.into_iter().map(|item| Mutex::new((Some(item), None))).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_once.max(1).min(places.len()) {
            scope.spawn(|| {
                while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut place = place.lock().expect("a place is locked by one thread only");
                    let item = place.0.take().expect("an item is taken once");
                    place.1 = Some(work(item));
                }
            });
        }
    });
    let done = |place: Mutex<(Option<T>, Option<R>)>| place.into_inner().expect("as above").1.expect("all are done");
    places.into_iter().map(done).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items_and_no_more_are_at_work_than_allowed() {
        let (at_work, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let squares = map((0..20).collect(), 3, |number: u64| {
            most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(5 - number % 5));
            at_work.fetch_sub(1, Ordering::SeqCst);
            number * number
        });
        assert_eq!(squares, (0..20).map(|number| number * number).collect::<Vec<u64>>());
        assert_eq!(most.into_inner(), 3);
        assert!(map(Vec::<u8>::new(), 2, |item| item).is_empty());
    }
}
