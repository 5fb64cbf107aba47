//! libtorch's errors as a strategy's.

use dpsgd_core::StrategyError;
use tch::TchError;

/// What went wrong inside a step.
pub type Result<T> = std::result::Result<T, TchError>;

/// Sorts an error of libtorch: out of memory, on the host or on the device, is told apart from all else.
///
/// The message becomes one line: libtorch appends its C++ stack, which nobody reads in a results file.
pub fn strategy_error(error: TchError) -> StrategyError {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default().trim().to_string();
    // c10/core/impl/alloc_cpu.cpp and c10/cuda/CUDACachingAllocator.cpp.
    let out_of_memory = ["DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory"];
    if text.contains("CUDA out of memory") || out_of_memory.iter().any(|message| text.contains(message)) {
        StrategyError::OutOfMemory(line)
    } else {
        StrategyError::Failed(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn a_tensor_larger_than_any_memory_is_out_of_memory() {
        // 2^58 bytes: within the address arithmetic, beyond any machine.
        let error = Tensor::f_empty([1 << 56], (Kind::Float, Device::Cpu)).unwrap_err();
        let error = strategy_error(error);
        assert!(matches!(error, StrategyError::OutOfMemory(_)), "{error:?}");
        assert!(!error.to_string().contains('\n'));
    }

    #[test]
    fn misfitting_shapes_are_an_ordinary_failure() {
        let (a, b) =
            (Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
        let error = strategy_error(a.f_mm(&b).unwrap_err());
        assert!(matches!(error, StrategyError::Failed(_)), "{error:?}");
    }
}
