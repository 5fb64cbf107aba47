//! Memory of the host that the device copies from by itself, while the host goes on.

/// What tells when the device has done all that was started before.
pub trait Fence {
    /// Of a fence's methods.
    type Error: Clone;

    /// It comes after what has been started so far.
    fn set(&mut self) -> Result<(), Self::Error>;

    /// Returns when the device has come to it.
    fn wait(&mut self) -> Result<(), Self::Error>;
}

/// Places for messages, used in turn.
///
/// A copy that the device makes by itself reads its source later, when all that was started before is done. So a place must
/// keep its message until then, however many steps are waiting. Each place has a fence, set behind its copy, and
/// [`Places::fill`] waits for it before it writes there again: the host can be ahead of the device by as many messages as
/// there are places, and no more. That the *target* is the same for all messages is safe without more: on one stream,
/// copies and kernels happen in the order of the calls, so a message arrives when the kernels that read the one before are
/// done, and before those that read it begin.
///
/// A fence that can't be set leaves nothing to wait for: then no place is ever filled again.
pub struct Places<F: Fence> {
    fences: Vec<(F, bool)>,
    next: usize,
    /// Why no place is filled any more.
    broken: Option<F::Error>,
}

impl<F: Fence> Places<F> {
    /// As many as there are fences.
    pub fn new(fences: impl IntoIterator<Item = F>) -> Self {
        Places { fences: fences.into_iter().map(|fence| (fence, false)).collect(), next: 0, broken: None }
    }

    /// Waits until the next place is free; then `fill` fills it and starts the copy from it. Of two errors, gives that
    /// of `fill`.
    pub fn fill<E: From<F::Error>>(&mut self, fill: impl FnOnce(usize) -> Result<(), E>) -> Result<(), E> {
        if let Some(error) = &self.broken {
            return Err(error.clone().into());
        }
        let place = self.next;
        let (fence, is_set) = &mut self.fences[place];
        if *is_set {
            fence.wait()?;
            *is_set = false;
        }
        self.next = (place + 1) % self.fences.len();
        // Set also after an error: the copy may have been started.
        let filled = fill(place);
        let (fence, is_set) = &mut self.fences[place];
        *is_set = true;
        let set = fence.set();
        self.broken = set.as_ref().err().cloned();
        filled.and(set.map_err(E::from))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::{Fence, Places};

    /// A device that does nothing until it is waited for.
    #[derive(Default)]
    struct Device {
        memory: Vec<[u8; 4]>,
        /// The place that each copy that is still to come reads.
        started: Vec<usize>,
        arrived: Vec<[u8; 4]>,
        waits: usize,
        /// Whether fences can't be set.
        sets_none: bool,
    }

    impl Device {
        fn go_on(&mut self, copies: usize) {
            for place in self.started.drain(..copies) {
                self.arrived.push(self.memory[place]);
            }
        }
    }

    struct Behind {
        device: Rc<RefCell<Device>>,
        /// Copies that are to be done, counted from the first of all.
        copies: usize,
    }

    impl Fence for Behind {
        type Error = ();

        fn set(&mut self) -> Result<(), ()> {
            let device = self.device.borrow();
            if device.sets_none {
                return Err(());
            }
            self.copies = device.arrived.len() + device.started.len();
            Ok(())
        }

        fn wait(&mut self) -> Result<(), ()> {
            let mut device = self.device.borrow_mut();
            device.waits += 1;
            let missing = self.copies.saturating_sub(device.arrived.len());
            device.go_on(missing);
            Ok(())
        }
    }

    #[test]
    fn no_message_is_overwritten_before_it_is_read() {
        for count in [1, 2, 5] {
            let device = Rc::new(RefCell::new(Device { memory: vec![[0; 4]; count], ..Device::default() }));
            let fences = (0..count).map(|_| Behind { device: Rc::clone(&device), copies: 0 });
            let mut places = Places::new(fences);
            for message in 0..40u32 {
                let sent: Result<(), ()> = places.fill(|place| {
                    let mut device = device.borrow_mut();
                    device.memory[place] = message.to_le_bytes();
                    device.started.push(place);
                    Ok(())
                });
                assert_eq!(sent, Ok(()));
            }
            let mut device = device.borrow_mut();
            // The host was ahead as far as it may be.
            assert_eq!((device.started.len(), device.waits), (count, 40 - count));
            device.go_on(count);
            let arrived: Vec<u32> = device.arrived.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
            assert_eq!(arrived, (0..40).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn a_place_that_could_not_be_filled_is_waited_for_like_others() {
        let device = Rc::new(RefCell::new(Device { memory: vec![[0; 4]], ..Device::default() }));
        let mut places = Places::new([Behind { device: Rc::clone(&device), copies: 0 }]);
        assert_eq!(places.fill::<()>(|_| Err(())), Err(()));
        assert_eq!(places.fill::<()>(|_| Ok(())), Ok(()));
        assert_eq!(device.borrow().waits, 1);
    }

    #[test]
    fn after_a_fence_that_could_not_be_set_no_place_is_filled() {
        #[derive(Debug, PartialEq)]
        enum Failed {
            Fill,
            Fence,
        }
        impl From<()> for Failed {
            fn from((): ()) -> Self {
                Failed::Fence
            }
        }
        for (fill, expected) in [(Ok(()), Failed::Fence), (Err(Failed::Fill), Failed::Fill)] {
            let device = Rc::new(RefCell::new(Device { memory: vec![[0; 4]; 3], ..Device::default() }));
            let mut places = Places::new((0..3).map(|_| Behind { device: Rc::clone(&device), copies: 0 }));
            assert_eq!(places.fill::<Failed>(|_| Ok(())), Ok(()));
            device.borrow_mut().sets_none = true;
            assert_eq!(places.fill(|_| fill), Err(expected));
            // Also when fences could be set again, and in places that were free.
            device.borrow_mut().sets_none = false;
            for _ in 0..4 {
                assert_eq!(places.fill(|_| panic!("filled")), Err(Failed::Fence));
            }
        }
    }
}
