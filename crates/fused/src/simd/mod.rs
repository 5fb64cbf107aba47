//! Vector instructions behind one trait, so that a kernel is written once and compiled for each instruction set.
//!
//! A value of a type that implements [`Isa`] is proof that the machine has the instructions: its constructor asks the
//! processor. A [`Kernel`]'s body is generic over the instruction set and always inlined; [`Isa::dispatch`] inlines it
//! into a function that is compiled with the set's target features. (The pattern is that of the crates rten-simd and
//! pulp.) Nothing here is decided per call: the engine is generic over the set and chosen once, when it is built.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;

/// A computation that is written once and compiled for every instruction set.
pub trait Kernel {
    /// What it gives.
    type Output;

    /// The body. Implementations must be `#[inline(always)]` and call only what is inlined, closures not included: code
    /// that is not inlined into [`Isa::dispatch`] is compiled without the instruction set.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// An instruction set: vectors of [`Isa::LANES`] numbers and what can be done with them.
///
/// # Safety
///
/// A value must exist only where the machine can execute the instructions that its methods use.
#[allow(clippy::wrong_self_convention, reason = "`self` is the instruction set, not what is converted")]
pub unsafe trait Isa: Copy + Send + Sync + 'static {
    /// A vector of `f32`.
    type F32: Copy;
    /// A vector of `u32`.
    type U32: Copy;
    /// A truth value per lane.
    type Mask: Copy;

    /// Numbers in a vector: 8 or 16.
    const LANES: usize;
    /// Vector registers.
    const REGISTERS: usize;
    /// Most rows of a product's register tile with one, two, three vectors a row, 0 where there is no such tile: the accumulators,
    /// a row of operands and a broadcast fit the vector registers, and an address per row the others. With one vector a
    /// row, loads are what bounds a tile: the more rows, the better.
    const ROWS: [usize; 3];
    /// Most vectors in a row of a register tile.
    const VECTORS: usize;
    /// Name for people.
    const NAME: &'static str;

    /// The instruction set, if this machine has it.
    fn detect() -> Option<Self>;

    /// Runs `kernel`, compiled for this instruction set.
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Output;

    /// All lanes `value`.
    fn splat(self, value: f32) -> Self::F32;
    /// Loads [`Isa::LANES`] numbers from any address.
    ///
    /// # Safety
    ///
    /// They must be readable.
    unsafe fn load(self, from: *const f32) -> Self::F32;
    /// Stores [`Isa::LANES`] numbers to any address.
    ///
    /// # Safety
    ///
    /// They must be writable.
    unsafe fn store(self, to: *mut f32, value: Self::F32);
    /// Loads the first `count` numbers, at most [`Isa::LANES`]; the other lanes are 0.
    ///
    /// # Safety
    ///
    /// These must be readable.
    unsafe fn load_first(self, from: *const f32, count: usize) -> Self::F32;
    /// Stores the first `count` lanes, at most [`Isa::LANES`].
    ///
    /// # Safety
    ///
    /// These must be writable.
    unsafe fn store_first(self, to: *mut f32, value: Self::F32, count: usize);

    /// a + b.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a - b.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a b.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a / b.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a b + c, in one rounding where the machine can.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The square root.
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// The sum of all lanes.
    fn sum(self, a: Self::F32) -> f32;
    /// The sum of all lanes of each.
    #[inline(always)]
    fn sums(self, a: [Self::F32; 4]) -> [f32; 4] {
        [self.sum(a[0]), self.sum(a[1]), self.sum(a[2]), self.sum(a[3])]
    }

    /// a > b; false where either is NaN.
    fn gt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// a = b; false where either is NaN.
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// Whether either is NaN.
    fn unordered(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// Both.
    fn both(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// Either.
    fn either(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// a and not b.
    fn and_not(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// No lane.
    fn none(self) -> Self::Mask;
    /// `a` where the mask holds, elsewhere 0.
    fn only(self, mask: Self::Mask, a: Self::F32) -> Self::F32;

    /// All lanes `value`.
    fn splat_u32(self, value: u32) -> Self::U32;
    /// `first`, `first` + 1, ...
    fn count_from(self, first: u32) -> Self::U32;
    /// a + b, wrapping.
    fn add_u32(self, a: Self::U32, b: Self::U32) -> Self::U32;
    /// a - b, wrapping.
    fn sub_u32(self, a: Self::U32, b: Self::U32) -> Self::U32;
    /// Bitwise exclusive or.
    fn xor(self, a: Self::U32, b: Self::U32) -> Self::U32;
    /// Bitwise and.
    fn and(self, a: Self::U32, b: Self::U32) -> Self::U32;
    /// Rotated left by `BITS`.
    fn rotate_left<const BITS: i32>(self, a: Self::U32) -> Self::U32;
    /// Shifted left by `BITS`.
    fn shift_left<const BITS: i32>(self, a: Self::U32) -> Self::U32;
    /// Shifted right by `BITS`, zeros coming in.
    fn shift_right<const BITS: i32>(self, a: Self::U32) -> Self::U32;
    /// Which lanes have their highest bit set.
    fn high_bit(self, a: Self::U32) -> Self::Mask;
    /// `a` where the mask holds, elsewhere `b`.
    fn select(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The bits of a number.
    fn bits(self, a: Self::F32) -> Self::U32;
    /// The number of these bits.
    fn from_bits(self, a: Self::U32) -> Self::F32;
    /// The nearest number to each lane taken as an `i32`.
    fn from_i32(self, a: Self::U32) -> Self::F32;
    /// The nearest `i32` (ties to even) to each number, which must be in range.
    fn to_i32(self, a: Self::F32) -> Self::U32;
}

/// Has the processor fetch the cache line of this address, where one can: a hint, and any address will do.
#[inline(always)]
pub fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has SSE, and a prefetch faults at no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
