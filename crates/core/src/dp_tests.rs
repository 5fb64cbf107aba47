use super::*;

const DP: DpSgd = DpSgd {
    mode: Mode::Private,
    clip_norm: 1.0,
    noise_multiplier: 1.1,
    learning_rate: 0.25,
    expected_batch_size: 64.0,
};

#[test]
fn hyperparameters_in_range_are_accepted() {
    assert_eq!(DP.validate(), Ok(()));
    assert_eq!(DpSgd { noise_multiplier: 0.0, ..DP }.validate(), Ok(()));
    let tiny = f64::MIN_POSITIVE;
    assert_eq!(DpSgd { clip_norm: tiny, learning_rate: f64::MAX, expected_batch_size: 0.5, ..DP }.validate(), Ok(()));
}

#[test]
fn a_hyperparameter_out_of_range_is_named_with_its_value_and_range() {
    type Set = fn(&mut DpSgd, f64);
    let positive: [(&str, Set); 3] = [
        ("clip_norm", |dp, value| dp.clip_norm = value),
        ("learning_rate", |dp, value| dp.learning_rate = value),
        ("expected_batch_size", |dp, value| dp.expected_batch_size = value),
    ];
    let error = |set: Set, value: f64| {
        let mut dp = DP;
        set(&mut dp, value);
        dp.validate().unwrap_err().to_string()
    };
    for (key, set) in positive {
        assert_eq!(error(set, 0.0), format!("{key} = 0: must be a finite number above 0"));
        assert_eq!(error(set, -1.5), format!("{key} = -1.5: must be a finite number above 0"));
        assert_eq!(error(set, f64::NAN), format!("{key} = NaN: must be a finite number above 0"));
        assert_eq!(error(set, f64::INFINITY), format!("{key} = inf: must be a finite number above 0"));
        assert_eq!(error(set, f64::NEG_INFINITY), format!("{key} = -inf: must be a finite number above 0"));
    }
    let noise: Set = |dp, value| dp.noise_multiplier = value;
    for (value, text) in [(-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let expected = format!("noise_multiplier = {text}: must be a finite number of at least 0");
        assert_eq!(error(noise, value), expected);
    }
}

#[test]
fn modes_are_named_as_in_results_files() {
    for mode in [Mode::Private, Mode::NonPrivate] {
        assert_eq!(serde_json::to_string(&mode).unwrap(), format!("\"{}\"", mode.name()));
    }
}

#[test]
fn an_unknown_hyperparameter_is_an_error() {
    let mut value = serde_json::to_value(DP).unwrap();
    assert_eq!(serde_json::from_value::<DpSgd>(value.clone()).unwrap(), DP);
    value["momentum"] = 0.9.into();
    let error = serde_json::from_value::<DpSgd>(value).unwrap_err().to_string();
    assert!(error.starts_with("unknown field `momentum`"), "{error}");
}

#[test]
fn padding_is_what_the_mask_leaves_out() {
    let padded = BatchRef { indices: &[4, 4, 1], mask: &[true, false, true] };
    assert_eq!((padded.examples(), padded.is_padded()), (2, true));
    let full = BatchRef { indices: &[4, 1], mask: &[true, true] };
    assert_eq!((full.examples(), full.is_padded()), (2, false));
    let empty = BatchRef { indices: &[0], mask: &[false] };
    assert_eq!((empty.examples(), empty.is_padded()), (0, true));
}
