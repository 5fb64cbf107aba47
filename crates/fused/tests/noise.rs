//! The noise: the right ChaCha, the right normals, the same everywhere, and nothing to see in them.

use std::f64::consts::PI;

use dpsgd_fused::noise::{self, GROUP, Key};
#[cfg(target_arch = "x86_64")]
use dpsgd_fused::simd::{Avx2, Avx512};
use dpsgd_fused::simd::{Isa, Kernel, Portable};
use dpsgd_stats::ks_normal;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_chacha::{ChaCha8Rng, ChaCha12Rng, ChaCha20Rng};

/// Something to check on every instruction set.
trait Check {
    fn check<I: Isa>(&self, isa: I);
}

fn on_every_isa(check: &impl Check) {
    fn on<I: Isa>(check: &impl Check) {
        match I::detect() {
            Some(isa) => check.check(isa),
            None => println!("skipped: {}, which this machine lacks", I::NAME),
        }
    }
    on::<Portable>(check);
    #[cfg(target_arch = "x86_64")]
    {
        on::<Avx2>(check);
        on::<Avx512>(check);
    }
}

/// Normals of a stream from number `start` on, by the fastest instruction set.
fn draw(key: &Key, step: u64, start: u64, normals: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(isa) = Avx512::detect() {
        return noise::fill(isa, key, step, start, normals);
    } else if let Some(isa) = Avx2::detect() {
        return noise::fill(isa, key, step, start, normals);
    }
    noise::fill(Portable, key, step, start, normals);
}

fn drawn(key: &Key, step: u64, start: u64, count: usize) -> Vec<f32> {
    // NaN shows what was not written.
    let mut normals = vec![f32::NAN; count];
    draw(key, step, start, &mut normals);
    normals
}

struct Words<'a, const ROUNDS: usize>(&'a Key<ROUNDS>, u64, u64);

impl<const ROUNDS: usize> Kernel for Words<'_, ROUNDS> {
    type Output = [u32; GROUP];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [u32; GROUP] {
        let mut words = [0; GROUP];
        noise::words(isa, self.0, self.1, self.2, &mut words);
        words
    }
}

/// Cosines and sines of as many radii and angles as 16, in vectors.
struct BoxMuller<'a>(&'a [u32; 16], &'a [u32; 16]);

impl Kernel for BoxMuller<'_> {
    type Output = ([f32; 16], [f32; 16]);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> ([f32; 16], [f32; 16]) {
        let (mut cosines, mut sines) = ([0.0; 16], [0.0; 16]);
        for lane in (0..16).step_by(I::LANES) {
            // SAFETY: `lane` is a multiple of the vector's length, which divides 16; only the words' bits are moved.
            unsafe {
                let radii = isa.bits(isa.load(self.0.as_ptr().add(lane).cast()));
                let angles = isa.bits(isa.load(self.1.as_ptr().add(lane).cast()));
                let (cosine, sine) = noise::box_muller(isa, radii, angles);
                isa.store(cosines.as_mut_ptr().add(lane), cosine);
                isa.store(sines.as_mut_ptr().add(lane), sine);
            }
        }
        (cosines, sines)
    }
}

/// The definition, in 64-bit floats.
fn exact_box_muller(radius: u32, angle: u32) -> (f64, f64) {
    let from_below = f64::from(radius) + 0.5;
    let from_above = 4_294_967_296.0 - from_below;
    let logarithm = if from_below < from_above {
        (from_below / 4_294_967_296.0).ln()
    } else {
        (-from_above / 4_294_967_296.0).ln_1p()
    };
    let length = (-2.0 * logarithm).sqrt() * if angle & 1 == 1 { -1.0 } else { 1.0 };
    let (sine, cosine) = (f64::from((angle << 1) as i32) * PI / 8_589_934_592.0).sin_cos();
    if angle >> 31 == 1 { (length * sine, length * cosine) } else { (length * cosine, length * sine) }
}

/// The distance of two neighbouring floats at `value`.
fn ulp(value: f64) -> f64 {
    let exponent = i32::try_from((value as f32).abs().to_bits() >> 23).expect("8 bits");
    2.0_f64.powi(exponent.max(1) - 127 - 23)
}

// ChaCha

#[test]
fn twenty_rounds_give_the_block_of_rfc_8439() {
    struct Rfc;
    impl Check for Rfc {
        fn check<I: Isa>(&self, isa: I) {
            let key = Key::from_bytes(std::array::from_fn(|byte| byte as u8)).with_rounds::<20>();
            // Section 2.3.2: the nonce 09000000 4a000000 00000000 and the counter 1. There the counter has 32 bits and
            // the nonce 96; here the nonce's first word is the counter's high one.
            let words = isa.dispatch(Words(&key, 0x4a00_0000, 0x0900_0000_0000_0000 / 16));
            let block: [u32; 16] = std::array::from_fn(|row| words[row * 16 + 1]);
            let expected = [
                0xe4e7_f110,
                0x1559_3bd1,
                0x1fdd_0f50,
                0xc471_20a3,
                0xc7f4_d1c7,
                0x0368_c033,
                0x9aaa_2204,
                0x4e6c_d4c3,
                0x4664_82d2,
                0x09aa_9f07,
                0x05d7_c214,
                0xa202_8bd9,
                0xd19c_12b5,
                0xb94e_16de,
                0xe883_d0cb,
                0x4e3c_50a2,
            ];
            assert_eq!(block, expected, "{}", I::NAME);
        }
    }
    on_every_isa(&Rfc);
}

#[test]
fn the_words_are_those_of_rand_chacha() {
    struct Crate;
    impl Check for Crate {
        fn check<I: Isa>(&self, isa: I) {
            let bytes = std::array::from_fn(|byte| (37 * byte + 11) as u8);
            let key = Key::from_bytes(bytes);
            // The first word of the counter overflows between the third and the fourth group.
            for group in [0, 1, (1 << 28) - 1, 1 << 28, 1 << 40, (1 << 60) - 1] {
                for step in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
                    macro_rules! compare {
                        ($rng:ty, $rounds:literal) => {
                            let mut rng = <$rng>::from_seed(bytes);
                            rng.set_stream(step);
                            rng.set_word_pos(u128::from(group) * GROUP as u128);
                            let words = isa.dispatch(Words(&key.with_rounds::<$rounds>(), step, group));
                            for lane in 0..16 {
                                for row in 0..16 {
                                    let expected = rng.next_u32();
                                    assert_eq!(
                                        words[row * 16 + lane],
                                        expected,
                                        "{}, {} rounds, group {group}, step {step}, row {row}, lane {lane}",
                                        I::NAME,
                                        $rounds
                                    );
                                }
                            }
                        };
                    }
                    compare!(ChaCha8Rng, 8);
                    compare!(ChaCha12Rng, 12);
                    compare!(ChaCha20Rng, 20);
                }
            }
        }
    }
    on_every_isa(&Crate);
}

#[test]
fn a_seed_becomes_a_key_by_splitmix64() {
    // The first numbers of SplitMix64 from seed 1234567, as published with Vigna's code and on Rosetta Code.
    let expected: [u64; 4] =
        [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423, 4_593_380_528_125_082_431];
    let key = Key::from_seed(1_234_567);
    let found = std::array::from_fn(|i| u64::from(key.words()[2 * i]) | u64::from(key.words()[2 * i + 1]) << 32);
    assert_eq!(expected, found);
}

#[test]
fn keys_from_the_system_differ() {
    let (one, other) = (Key::from_os().unwrap(), Key::from_os().unwrap());
    assert_ne!(one.words(), other.words());
    assert_ne!(drawn(&one, 0, 0, 64), drawn(&other, 0, 0, 64));
}

#[test]
fn a_key_is_not_printed() {
    let key = Key::from_bytes([0xab; 32]).with_rounds::<12>();
    assert_eq!(format!("{key:?}"), "Key(secret, ChaCha12)");
}

// Box-Muller

/// Words at which something changes, and their neighbours.
fn edges() -> Vec<u32> {
    let powers = (0..32).map(|bit| 1_u32 << bit);
    let thirds = (0..32).map(|bit| (0xaaaa_aaaa_u32) >> bit);
    let exact = powers.chain(thirds).chain([0, 0xffff_ff7f, 0xffff_ff80, 0x3fff_ffff, 0xc000_0000, 0xe000_0000]);
    exact.flat_map(|word| [word.wrapping_sub(2), word.wrapping_sub(1), word, word.wrapping_add(1), !word]).collect()
}

#[test]
fn normals_are_those_of_64_bit_floats_within_five_units_in_the_last_place() {
    struct Exact;
    impl Check for Exact {
        fn check<I: Isa>(&self, isa: I) {
            let edges = edges();
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let pairs = edges.iter().flat_map(|&radius| edges.iter().map(move |&angle| (radius, angle)));
            let mut pairs: Vec<(u32, u32)> = pairs.collect();
            pairs.extend((0..2_000_000).map(|_| (rng.next_u32(), rng.next_u32())));
            pairs.extend((0..100_000).map(|_| (rng.next_u32() >> (rng.next_u32() % 32), rng.next_u32())));
            pairs.extend((0..100_000).map(|_| (!(rng.next_u32() >> (rng.next_u32() % 32)), rng.next_u32())));

            let (mut units, mut distance) = (0.0_f64, 0.0_f64);
            for pairs in pairs.as_chunks::<16>().0 {
                let (cosines, sines) = isa.dispatch(BoxMuller(&pairs.map(|pair| pair.0), &pairs.map(|pair| pair.1)));
                for (lane, &(radius, angle)) in pairs.iter().enumerate() {
                    let (cosine, sine) = exact_box_muller(radius, angle);
                    for (found, expected) in [(cosines[lane], cosine), (sines[lane], sine)] {
                        let error = (f64::from(found) - expected).abs();
                        assert!(
                            error <= 5.0 * ulp(expected) && error <= 1.5e-6,
                            "{}: radius {radius:#x}, angle {angle:#x}: {found} instead of {expected}",
                            I::NAME
                        );
                        assert!(found == 0.0 || found.is_normal(), "{found:e}");
                        assert!(found != 0.0 || angle << 1 == 0, "0 of radius {radius:#x} and angle {angle:#x}");
                        units = units.max(error / ulp(expected));
                        distance = distance.max(error);
                    }
                }
            }
            println!("{}: at most {units:.2} units in the last place, {distance:.2e}", I::NAME);
        }
    }
    on_every_isa(&Exact);
}

#[test]
fn the_radius_goes_from_a_hundred_thousandth_to_6_76_sigma() {
    struct Ends;
    impl Check for Ends {
        fn check<I: Isa>(&self, isa: I) {
            let radii = std::array::from_fn(|lane| if lane % 2 == 0 { 0 } else { u32::MAX });
            let (cosines, sines) = isa.dispatch(BoxMuller(&radii, &[0; 16]));
            assert_eq!(sines, [0.0; 16]);
            assert_eq!(cosines[0], (66.0 * std::f64::consts::LN_2).sqrt() as f32);
            assert_eq!(cosines[1], 2.0_f32.powi(-16));
        }
    }
    on_every_isa(&Ends);
}

/// The definition once more, in 32-bit floats and with a fused multiply-add: what every kernel on every device does.
fn fused_box_muller(radius: u32, angle: u32) -> (f32, f32) {
    let high = (radius >> 16) as f32;
    let low = ((radius & 0xffff) as f32).mul_add(1.0 / 65536.0, 0.5 / 65536.0);
    let exponent = (high + low).to_bits().wrapping_sub(43690.668_f32.to_bits()) & 0xff80_0000;
    let scale = f32::from_bits(0x3780_0000_u32.wrapping_sub(exponent));
    let t = low.mul_add(scale, high.mul_add(scale, -1.0));
    let most = (exponent as i32 as f32).mul_add(-1.6525917e-7, -2.0 * t);
    let t2 = t * t;
    let p2 = t.mul_add(-0.666_664_4, 0.999_997_56);
    let p4 = t.mul_add(-0.400_217_53, 0.500_238_4);
    let p6 = t.mul_add(-0.279_801_2, 0.326_850_15);
    let p8 = t.mul_add(-0.281_745_55, 0.315_309_85);
    let polynomial = p8.mul_add(t2, p6).mul_add(t2 * t2, p4.mul_add(t2, p2));
    let length = t2.mul_add(polynomial, most).sqrt();

    let x = ((angle << 1) as i32 as f32) * 3.6572953e-10;
    let x2 = x * x;
    let cosine = x2.mul_add(2.443_845_2e-5, -0.001_388_736_8).mul_add(x2, 0.041_666_646);
    let cosine = cosine.mul_add(x2, -0.5).mul_add(x2, 1.0);
    let sine = x2.mul_add(-0.000_195_173, 0.008_332_178).mul_add(x2, -0.166_666_55).mul_add(x2 * x, x);
    let length = f32::from_bits(length.to_bits() ^ angle << 31);
    if angle >> 31 == 1 { (length * sine, length * cosine) } else { (length * cosine, length * sine) }
}

#[test]
fn every_isa_draws_the_same_stream() {
    struct Same;
    impl Check for Same {
        fn check<I: Isa>(&self, isa: I) {
            // Without a fused multiply-add the portable code rounds more often.
            let fused = I::NAME != Portable::NAME || cfg!(any(target_arch = "aarch64", target_feature = "fma"));
            let key = Key::from_seed(77);
            for (step, group) in [(0, 0), (1, 0), (0, 1), (3, 1 << 28), (u64::MAX, (1 << 60) - 1)] {
                let words = isa.dispatch(Words(&key, step, group));
                let mut normals = [f32::NAN; GROUP];
                // No index reaches the last groups of a stream.
                if group < 1 << 56 {
                    noise::fill(isa, &key, step, group * GROUP as u64, &mut normals);
                } else {
                    isa.dispatch(OneGroup(&key, step, group, &mut normals));
                }
                for row in 0..8 {
                    for lane in 0..16 {
                        let (radius, angle) = (words[row * 16 + lane], words[(row + 8) * 16 + lane]);
                        let (cosine, sine) = fused_box_muller(radius, angle);
                        for (found, expected) in
                            [(normals[row * 16 + lane], cosine), (normals[(row + 8) * 16 + lane], sine)]
                        {
                            let tolerance = if fused { 0.0 } else { 6.0 * ulp(expected.into()) };
                            let error = (f64::from(found) - f64::from(expected)).abs();
                            assert!(
                                error <= tolerance,
                                "{}: step {step}, group {group}, row {row}, lane {lane}: {found} is not {expected}",
                                I::NAME
                            );
                        }
                    }
                }
            }
        }
    }
    on_every_isa(&Same);
}

struct OneGroup<'a>(&'a Key, u64, u64, &'a mut [f32; GROUP]);

impl Kernel for OneGroup<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        noise::group(isa, self.0, self.1, self.2, self.3);
    }
}

#[test]
fn the_normals_of_a_seed_never_change() {
    let key = Key::from_seed(0);
    for (step, index, expected) in NORMALS {
        let found = f64::from(drawn(&key, step, index, 1)[0]);
        assert!((found - expected).abs() <= 1e-6, "normal {index} of step {step}: {found} instead of {expected}");
    }
}

/// Step, index and normal of seed 0, by the definition in the module's documentation, written again in Python.
const NORMALS: [(u64, u64, f64); 10] = [
    (0, 0, -1.548543155),
    (0, 1, -0.550861355),
    (0, 15, -0.028891429),
    (0, 16, -0.691788207),
    (0, 127, -0.173544462),
    (0, 128, -1.026833930),
    (0, 255, -0.531075018),
    (0, 256, 0.303016246),
    (3, 1000, 0.545647737),
    (1099511627776, 1000000000000, -0.785588365),
];

// The stream

#[test]
fn a_stream_is_the_same_from_any_index_and_in_any_pieces() {
    struct Pieces;
    impl Check for Pieces {
        fn check<I: Isa>(&self, isa: I) {
            let key = Key::from_seed(5);
            let mut whole = vec![f32::NAN; 5 * GROUP + 3];
            noise::fill(isa, &key, 9, 0, &mut whole);
            assert!(whole.iter().all(|normal| normal.is_finite()));
            for start in [0, 1, 7, 8, 15, 16, 255, 256, 257, 511, 700, 1282] {
                for count in [0, 1, 5, 8, 255, 256, 257, 513, 1283] {
                    let count = count.min(whole.len() - start);
                    let mut piece = vec![f32::NAN; count];
                    noise::fill(isa, &key, 9, start as u64, &mut piece);
                    assert_eq!(piece, whole[start..start + count], "{}: {count} from {start}", I::NAME);
                }
            }
            let mut in_turns = Vec::new();
            for count in (1..).take_while(|count| count * (count + 1) / 2 <= whole.len()) {
                let mut piece = vec![f32::NAN; count];
                noise::fill(isa, &key, 9, in_turns.len() as u64, &mut piece);
                in_turns.extend(piece);
            }
            assert_eq!(in_turns, whole[..in_turns.len()], "{}", I::NAME);
        }
    }
    on_every_isa(&Pieces);
}

#[test]
fn steps_seeds_and_rounds_have_streams_of_their_own() {
    let key = Key::from_seed(1);
    let first = drawn(&key, 0, 0, GROUP);
    let mut twelve = vec![0.0; GROUP];
    noise::fill(Portable, &key.with_rounds::<12>(), 0, 0, &mut twelve);
    let others = [
        drawn(&key, 1, 0, GROUP),
        drawn(&key, 1 << 32, 0, GROUP),
        drawn(&key, 0, GROUP as u64, GROUP),
        drawn(&key, 0, (GROUP as u64) << 28, GROUP),
        drawn(&Key::from_seed(0), 0, 0, GROUP),
        drawn(&Key::from_seed(1 << 63 | 1), 0, 0, GROUP),
        twelve,
    ];
    for (index, other) in others.iter().enumerate() {
        let equal = first.iter().zip(other).filter(|(one, other)| one == other).count();
        assert!(equal <= 1, "{equal} normals of stream {index} are those of the first");
    }
}

#[test]
fn no_pair_of_words_comes_twice() {
    // Of 2^21 pairs of 64 bits, two are equal once in 2^23 such tests.
    let mut pairs = Vec::new();
    for (seed, step) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let key = Key::from_seed(seed);
        for group in 0..4096 {
            let words = Portable.dispatch(Words(&key, step, group));
            pairs.extend((0..128).map(|i| u64::from(words[i]) << 32 | u64::from(words[i + 128])));
        }
    }
    let drawn = pairs.len();
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), drawn);
}

// The distribution

const MANY: usize = 1 << 22;

/// The probability of 5 standard errors: what all tests of the distribution allow themselves to be unlucky.
const FIVE_SIGMA: f64 = 5.7e-7;

#[test]
fn the_normals_pass_kolmogorov_and_smirnov_which_see_one_percent() {
    for (seed, step) in [(0, 0), (1, 0), (1, 1), (u64::MAX, 1 << 40)] {
        let mut sample: Vec<f64> = drawn(&Key::from_seed(seed), step, 0, MANY).into_iter().map(f64::from).collect();
        let test = ks_normal(&mut sample, 0.0, 1.0);
        assert!(test.p_value > FIVE_SIGMA, "seed {seed}, step {step}: {test:?}");
        for std in [0.99, 1.01] {
            let test = ks_normal(&mut sample, 0.0, std);
            assert!(test.p_value < FIVE_SIGMA, "sigma wrong by 1 % passes: {test:?}");
        }
    }
}

#[test]
fn the_p_values_of_kolmogorov_and_smirnov_are_uniform() {
    const SEEDS: usize = 200;
    let p_values = (0..SEEDS as u64).map(|seed| {
        let mut sample: Vec<f64> = drawn(&Key::from_seed(seed), 3, 0, 1 << 16).into_iter().map(f64::from).collect();
        ks_normal(&mut sample, 0.0, 1.0).p_value
    });
    let errors = standard_errors(p_values.sum(), SEEDS, 0.5, 1.0 / 12.0);
    assert!(errors.abs() <= 5.0, "their mean is off by {errors:.1} standard errors");
}

/// |mean - expected| in standard errors, of `count` numbers with this sum and variance.
fn standard_errors(sum: f64, count: usize, expected: f64, variance: f64) -> f64 {
    (sum / count as f64 - expected) / (variance / count as f64).sqrt()
}

#[test]
fn the_moments_are_those_of_a_normal() {
    let key = Key::from_seed(11);
    for step in 0..2 {
        let normals = drawn(&key, step, 12_345, 4 * MANY);
        // The power, its expectation, and the expectation of its square.
        for (power, expected, square) in
            [(1, 0.0, 1.0), (2, 1.0, 3.0), (3, 0.0, 15.0), (4, 3.0, 105.0), (6, 15.0, 10_395.0)]
        {
            let sum: f64 = normals.iter().map(|&normal| f64::from(normal).powi(power)).sum();
            let errors = standard_errors(sum, normals.len(), expected, square - expected * expected);
            assert!(errors.abs() <= 5.0, "step {step}: moment {power} is off by {errors:.1} standard errors");
        }
    }
}

#[test]
fn the_tails_are_those_of_a_normal_beyond_five_sigma() {
    // P(|z| > t), by scipy.special.erfc.
    const TAILS: [(f32, f64); 4] = [
        (3.0, 2.699_796_063_260_206_7e-3),
        (4.0, 6.334_248_366_623_995e-5),
        (4.5, 6.795_346_249_460_122e-6),
        (5.0, 5.733_031_437_583_878e-7),
    ];
    const PIECE: usize = 1 << 16;
    const PIECES: usize = 1 << 12;
    let key = Key::from_seed(21);
    let (mut above, mut below) = ([0_u64; 4], [0_u64; 4]);
    let mut normals = vec![0.0; PIECE];
    for piece in 0..PIECES {
        draw(&key, 4, (piece * PIECE) as u64, &mut normals);
        for (tail, (beyond, _)) in TAILS.iter().enumerate() {
            above[tail] += normals.iter().map(|&normal| u32::from(normal > *beyond)).sum::<u32>() as u64;
            below[tail] += normals.iter().map(|&normal| u32::from(normal < -*beyond)).sum::<u32>() as u64;
        }
    }
    for (tail, (beyond, probability)) in TAILS.iter().enumerate() {
        let expected = probability / 2.0 * (PIECE * PIECES) as f64;
        for (side, found) in [("above", above[tail]), ("below", below[tail])] {
            let errors = (found as f64 - expected) / expected.sqrt();
            assert!(errors.abs() <= 5.0, "{found} instead of {expected:.1} {side} {beyond} sigma");
        }
    }
    println!("beyond 5 sigma: {} above, {} below", above[3], below[3]);
}

/// Fails if the numbers or their squares are correlated beyond 5 standard errors.
fn assert_uncorrelated(one: impl Iterator<Item = f32>, other: impl Iterator<Item = f32>, what: &str) {
    let (mut count, mut products, mut squares) = (0, 0.0, 0.0);
    for (a, b) in one.zip(other) {
        let (a, b) = (f64::from(a), f64::from(b));
        count += 1;
        products += a * b;
        squares += (a * a - 1.0) * (b * b - 1.0);
    }
    assert!(count > 100_000, "{what}: {count} are too few");
    let (linear, square) = (standard_errors(products, count, 0.0, 1.0), standard_errors(squares, count, 0.0, 4.0));
    assert!(linear.abs() <= 5.0 && square.abs() <= 5.0, "{what}: correlated by {linear:.1}, squares by {square:.1}");
}

#[test]
fn lanes_rows_and_groups_are_uncorrelated() {
    let normals = drawn(&Key::from_seed(31), 0, 0, MANY);
    // Within a group: each lane and row with the next ones, cosines with their sines; then groups with the next ones.
    for distance in (1..=32).chain([48, 64, 112, 127, 128, 129, 240, 255, 256, 257, 512, 4096, 65_536]) {
        let later = normals.iter().skip(distance).copied();
        assert_uncorrelated(normals.iter().copied(), later, &format!("distance {distance}"));
    }
    let row =
        |first: usize| normals.chunks_exact(GROUP).flat_map(move |group| group[first..first + 16].iter().copied());
    for (one, other) in (0..16).flat_map(|one| (0..one).map(move |other| (one, other))) {
        assert_uncorrelated(row(16 * one), row(16 * other), &format!("rows {one} and {other}"));
    }
    let lane = |lane: usize| normals.iter().skip(lane).step_by(16).copied();
    for (one, other) in (0..16).flat_map(|one| (0..one).map(move |other| (one, other))) {
        assert_uncorrelated(lane(one), lane(other), &format!("lanes {one} and {other}"));
    }
}

#[test]
fn steps_and_neighbouring_seeds_are_uncorrelated() {
    let first = drawn(&Key::from_seed(40), 7, 0, MANY);
    for (seed, step) in [(40, 8), (40, 6), (40, 7 + (1 << 32)), (41, 7), (39, 7), (42, 7), (40 + (1 << 32), 7)] {
        let other = drawn(&Key::from_seed(seed), step, 0, MANY);
        assert_uncorrelated(first.iter().copied(), other.into_iter(), &format!("seed {seed}, step {step}"));
    }
    // One index over the steps.
    let key = Key::from_seed(43);
    let of_steps: Vec<f32> = (0..200_000).flat_map(|step| drawn(&key, step, 1000, 1)).collect();
    assert_uncorrelated(of_steps.iter().copied(), of_steps.iter().skip(1).copied(), "one index over the steps");
    let sum: f64 = of_steps.iter().copied().map(f64::from).sum();
    assert!(standard_errors(sum, of_steps.len(), 0.0, 1.0).abs() <= 5.0);
}
