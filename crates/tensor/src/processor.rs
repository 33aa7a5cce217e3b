//! One body, compiled for several instruction sets, chosen when it is called.
//!
//! `for_this_processor!` takes one function in plain Rust and compiles it three times on x86-64: for any processor,
//! for AVX2, for AVX-512. The body is the specification; the compiler vectorises it for each set. None of the bodies
//! sums floats in an order that the vector width could change, so all three give the same bits (tests compare them).

/// Defines `$name(args) -> output`, which calls the best of three compilations of its body, and a module of the same
/// name with `plain`, the compilation for any processor, for tests to compare with.
macro_rules! for_this_processor {
    ($(#[$doc:meta])* $visible:vis fn $name:ident $(<const $constant:ident: $of:ty>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block) => {
        $(#[$doc])*
        $visible fn $name $(<const $constant: $of>)? ($($argument: $type),*) $(-> $output)? {
            #[cfg(target_arch = "x86_64")]
            {
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the body is safe Rust; the only duty of a caller is that the processor has the
                    // features it was compiled for, and that was just asked.
                    #[allow(unsafe_code)]
                    return unsafe { $name::avx512$(::<$constant>)?($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: as above, for AVX2 and FMA.
                    #[allow(unsafe_code)]
                    return unsafe { $name::avx2$(::<$constant>)?($($argument),*) };
                }
            }
            $name::plain$(::<$constant>)?($($argument),*)
        }

        mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[inline(always)]
            fn body $(<const $constant: $of>)? ($($argument: $type),*) $(-> $output)? $body

            pub fn plain $(<const $constant: $of>)? ($($argument: $type),*) $(-> $output)? {
                body$(::<$constant>)?($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            pub fn avx512 $(<const $constant: $of>)? ($($argument: $type),*) $(-> $output)? {
                body$(::<$constant>)?($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            pub fn avx2 $(<const $constant: $of>)? ($($argument: $type),*) $(-> $output)? {
                body$(::<$constant>)?($($argument),*)
            }
        }
    };
}

pub(crate) use for_this_processor;
