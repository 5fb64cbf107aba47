//! Every kernel, on every instruction set that this machine has, against plain loops in 64-bit floats: generated shapes,
//! NaN wherever nothing should be read, and a watch over everything that should not be written.
//!
//! The tests of an instruction set are in a module of its name: `cargo test --test kernels portable`.

mod elementwise;
#[path = "../generated/mod.rs"]
mod generated;
mod gradients;
mod guarded;
mod lstm;
mod math;
mod pooling;
mod products;

use dpsgd_fused::simd::Isa;

/// The instruction set, or a line that says that it isn't there.
fn detected<I: Isa>() -> Option<I> {
    let isa = I::detect();
    if isa.is_none() {
        println!("skipped: {}, which this machine lacks", I::NAME);
    }
    isa
}

/// A module with the tests of one instruction set.
macro_rules! tests {
    ($module:ident, $isa:ident: $($(#[$attribute:meta])? $file:ident::$name:ident,)*) => {
        mod $module {
            $(#[test]
            $(#[$attribute])?
            fn $name() {
                if let Some(isa) = super::detected::<dpsgd_fused::simd::$isa>() {
                    super::$file::$name(isa);
                }
            })*
        }
    };
}

/// The same tests for each of some instruction sets.
macro_rules! tests_of_all {
    ($($module:ident, $isa:ident;)*) => {
        $(tests! {
            $module, $isa:
            products::products_are_those_of_matrices,
            products::a_product_without_rows_writes_nothing,
            products::a_relu_in_a_product_keeps_nan,
            gradients::weight_gradients_are_sums_over_positions,
            gradients::weight_gradients_without_positions_are_zero,
            gradients::squares_of_long_gradients_keep_their_digits,
            gradients::sums_over_many_positions_keep_their_digits,
            gradients::ghost_norms_are_norms_of_the_gradient,
            gradients::rank_one_norms_are_norms_of_the_gradient,
            pooling::pools_are_those_of_windows,
            pooling::gradients_of_pools_go_where_the_values_came_from,
            pooling::pixels_between_windows_have_no_gradient,
            pooling::a_nan_in_a_window_wins,
            lstm::a_step_of_an_lstm_is_its_formulas,
            lstm::a_backward_step_of_an_lstm_is_its_derivative,
            lstm::saturated_gates_are_zero_or_one,
            elementwise::slices_are_scaled_and_added,
            elementwise::squared_norms_keep_their_digits,
            elementwise::relu_and_its_mask_turn_at_zero,
            elementwise::examples_are_scaled_by_factors_of_their_own,
            elementwise::cross_entropy_has_the_gradient_softmax_minus_one_hot,
            math::the_exponential_is_good_to_two_ulp,
            math::the_sigmoid_is_good_to_three_ulp,
            math::the_hyperbolic_tangent_is_good_to_eight_ulp,
            math::exponential_functions_have_limits_and_keep_nan,
        })*
    };
}

tests_of_all! {
    portable, Portable;
}

#[cfg(target_arch = "x86_64")]
tests_of_all! {
    avx2, Avx2;
    avx512, Avx512;
}
