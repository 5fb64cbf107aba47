//! Pinned memory of the host, for small messages to a CUDA device that nobody waits for.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};

use super::staging::{Fence, Places};

/// How many messages can be on their way.
const PLACES: usize = 16;

/// Places for messages in pinned memory.
pub struct Pinned {
    memory: NonNull<c_void>,
    places: Places<Behind>,
    stream: Arc<CudaStream>,
}

/// An event on a stream.
struct Behind {
    event: CudaEvent,
    stream: Arc<CudaStream>,
}

impl Fence for Behind {
    type Error = DriverError;

    fn set(&mut self) -> Result<(), DriverError> {
        self.event.record(&self.stream)
    }

    fn wait(&mut self) -> Result<(), DriverError> {
        self.event.synchronize()
    }
}

impl Pinned {
    /// Most bytes of a message.
    pub const MOST: usize = 1 << 16;

    /// For messages on this stream.
    pub fn new(context: &Arc<CudaContext>, stream: &Arc<CudaStream>) -> Result<Self, DriverError> {
        context.bind_to_thread()?;
        let behind = |_| Ok(Behind { event: context.new_event(None)?, stream: Arc::clone(stream) });
        let fences = (0..PLACES).map(behind).collect::<Result<Vec<Behind>, DriverError>>()?;
        // SAFETY: the context is in force; the memory is freed with `self`.
        let memory = unsafe { result::malloc_host(PLACES * Self::MOST, 0) }?;
        let memory = NonNull::new(memory).expect("the driver gives memory or an error");
        Ok(Pinned { memory, places: Places::new(fences), stream: Arc::clone(stream) })
    }

    /// Copies at most [`Pinned::MOST`] bytes to the device, after all that was started on the stream; returns when they are
    /// taken, before they arrive.
    ///
    /// # Safety
    ///
    /// There are as many bytes at `to`, on the device of the stream, and they stay until the copy is done.
    pub unsafe fn send(&mut self, to: u64, bytes: &[u8]) -> Result<(), DriverError> {
        assert!(bytes.len() <= Self::MOST, "a message of {} bytes", bytes.len());
        let (memory, stream) = (self.memory, self.stream.cu_stream());
        self.places.fill(|place| {
            // SAFETY: `place` is one of so many of this size, and the message fits it. The device does not read there: the
            // fence behind the copy from this place, if there was one, has been waited for.
            let source = unsafe {
                let place = memory.as_ptr().cast::<u8>().add(place * Self::MOST);
                place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                std::slice::from_raw_parts(place, bytes.len())
            };
            // SAFETY: the caller vouches for the target; the source stays as it is until the fence is waited for.
            unsafe { result::memcpy_htod_async(to, source, stream) }
        })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Nobody is told of errors: they concern nobody any more.
        let _ = self.stream.synchronize();
        // SAFETY: it was allocated with `malloc_host`, and the device reads it no more.
        let _ = unsafe { result::free_host(self.memory.as_ptr()) };
    }
}
