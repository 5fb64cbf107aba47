//! Memory that is allocated once, at load, and aligned to cache lines.

use std::ops::{Deref, DerefMut};

/// One cache line, and one AVX-512 vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;

/// A fixed number of `f32` from a cache line's beginning on.
#[derive(Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Buffer { lines: vec![Line([0.0; LINE]); len.div_ceil(LINE)], len }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a `Line` is 16 `f32` without padding, and `zeros` made at least `len` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// A slice that several threads write, each its own part.
pub struct Shared<'a, T = f32> {
    start: *mut T,
    len: usize,
    of: std::marker::PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: access to the numbers is by unsafe methods whose callers keep threads apart.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Takes the slice for as long as it is shared.
    pub fn new(slice: &'a mut [T]) -> Self {
        Shared { start: slice.as_mut_ptr(), len: slice.len(), of: std::marker::PhantomData }
    }

    /// A part to write.
    ///
    /// # Safety
    ///
    /// Nothing else reads or writes any of it while the part lives.
    #[allow(clippy::mut_from_ref, reason = "the caller keeps parts apart")]
    pub unsafe fn part(&self, range: std::ops::Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: the part lies in the slice, and the caller keeps it apart from others.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// A part to read.
    ///
    /// # Safety
    ///
    /// Nothing writes any of it while the part lives.
    pub unsafe fn read(&self, range: std::ops::Range<usize>) -> &[T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: the part lies in the slice, and the caller keeps writers away.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// Writes one number.
    ///
    /// # Safety
    ///
    /// Nothing else reads or writes it at the same time.
    #[inline(always)]
    pub unsafe fn write(&self, index: usize, value: T) {
        assert!(index < self.len, "{index} of {}", self.len);
        // SAFETY: it lies in the slice, and the caller keeps others away.
        unsafe { self.start.add(index).write(value) }
    }
}

impl Shared<'_> {
    /// Writes numbers `pitch` apart, the first one to `index`.
    ///
    /// # Safety
    ///
    /// Nothing else reads or writes these places at the same time.
    #[inline(always)]
    pub unsafe fn write_apart(&self, index: usize, pitch: usize, values: &[f32]) {
        let Some(last) = values.len().checked_sub(1) else { return };
        assert!(index + last * pitch < self.len, "{index} + {last} x {pitch} of {}", self.len);
        for (i, value) in values.iter().enumerate() {
            // SAFETY: it lies in the slice, as the last one does, and the caller keeps others away.
            unsafe { self.start.add(index + i * pitch).write(*value) };
        }
    }
}
