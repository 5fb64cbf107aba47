//! Every message survives a round trip, and nothing unknown is let through.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dpsgd_core::{Description, Device, DpSgd, Kernels, Mode, ModelSpec, Settings};
use dpsgd_protocol::messages::{ErrorKind, PROTOCOL_VERSION, Reply, Request};

fn dp() -> DpSgd {
    DpSgd { mode: Mode::Private, clip_norm: 1.5, noise_multiplier: 0.1, learning_rate: 0.3, expected_batch_size: 64.0 }
}

fn requests() -> Vec<Request> {
    let settings =
        Settings { variant: Some("captured".into()), device: Device::Cuda(1), threads: 2, noise_seed: Some(u64::MAX) };
    let load = |name: &str| Request::Load {
        model: ModelSpec::built_in(name).unwrap(),
        params: "p.safetensors".into(),
        dataset: "d.safetensors".into(),
        dp: dp(),
        settings: settings.clone(),
    };
    let mut requests: Vec<Request> = ModelSpec::built_in_names().map(load).collect();
    requests.extend([
        Request::Hello { version: PROTOCOL_VERSION },
        Request::Set { params: None, dp: Some(dp()) },
        Request::Set { params: Some(PathBuf::from("a b.safetensors")), dp: None },
        Request::Step { indices: vec![3, 0], mask: vec![true, false] },
        Request::Epoch { schedule: "s.safetensors".into(), repeat: 3 },
        Request::Params { path: "out.safetensors".into() },
        Request::Bye {},
    ]);
    requests
}

fn replies() -> Vec<Reply> {
    let description = Description {
        name: "naive".into(),
        variant: None,
        versions: BTreeMap::from([("libtorch".into(), "2.11.0".into())]),
        device: "cpu".into(),
        threads: 2,
        rng: "mt19937".into(),
    };
    let loaded = |kernels| Reply::Loaded {
        load_s: 0.1 + 0.2,
        data_sha256: "ab".repeat(32),
        description: description.clone(),
        kernels,
    };
    let epoch = |first_step_s| Reply::Epoch {
        epochs_s: vec![1.25, 0.5],
        first_step_s,
        steps: 4,
        examples: 256,
        batches_sha256: "cd".repeat(32),
        non_finite_examples: 0,
    };
    vec![
        Reply::Hello { version: PROTOCOL_VERSION, name: "naive".into(), variants: vec!["a".into()] },
        loaded(None),
        loaded(Some(Kernels { compile_s: Some(3.25), cached_s: None })),
        loaded(Some(Kernels { compile_s: Some(3.25), cached_s: Some(0.01) })),
        Reply::Set {},
        Reply::Stepped { step_s: 1e-9, non_finite_examples: 3 },
        epoch(None),
        epoch(Some(0.5)),
        Reply::Params { path: "out.safetensors".into() },
        Reply::Bye {},
        Reply::Error { kind: ErrorKind::OutOfMemory, message: "a \"quoted\"\nline".into() },
    ]
}

#[test]
fn every_request_survives_a_round_trip_on_one_line() {
    for request in requests() {
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    }
}

#[test]
fn every_reply_survives_a_round_trip_on_one_line() {
    for reply in replies() {
        let line = serde_json::to_string(&reply).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
    }
}

#[test]
fn a_worker_that_says_nothing_of_kernels_has_none() {
    let description = r#"{"name":"a","variant":null,"versions":{},"device":"cpu","threads":1,"rng":"none"}"#;
    let line = format!(r#"{{"reply":"loaded","load_s":1.0,"data_sha256":"","description":{description}}}"#);
    let reply: Reply = serde_json::from_str(&line).unwrap();
    let Reply::Loaded { kernels: None, .. } = reply else { panic!("{reply:?}") };
    // Nor does one that has none say anything: a runner of before understands it.
    assert_eq!(serde_json::to_string(&reply).unwrap(), line);
}

#[test]
fn an_unknown_field_is_an_error_in_every_request_and_reply() {
    let lines = requests().into_iter().map(serde_json::to_value).chain(replies().into_iter().map(serde_json::to_value));
    for value in lines {
        let mut value = value.unwrap();
        value["surprise"] = true.into();
        let text = value.to_string();
        let tagged_request = value.get("request").is_some();
        if tagged_request {
            let error = serde_json::from_str::<Request>(&text).unwrap_err();
            assert!(error.to_string().contains("surprise"), "{error}: {text}");
        } else {
            let error = serde_json::from_str::<Reply>(&text).unwrap_err();
            assert!(error.to_string().contains("surprise"), "{error}: {text}");
        }
    }
}

#[test]
fn an_unknown_message_and_a_missing_field_are_errors() {
    assert!(serde_json::from_str::<Request>(r#"{"request":"dance"}"#).is_err());
    assert!(serde_json::from_str::<Request>(r#"{"request":"hello"}"#).is_err());
    assert!(serde_json::from_str::<Reply>(r#"{"reply":"stepped","step_s":1.0}"#).is_err());
}

#[test]
fn the_wire_form_is_the_documented_one() {
    let hello = serde_json::to_string(&Request::Hello { version: 2 }).unwrap();
    assert_eq!(hello, r#"{"request":"hello","version":2}"#);
    let step = serde_json::to_string(&Request::Step { indices: vec![1], mask: vec![true] }).unwrap();
    assert_eq!(step, r#"{"request":"step","indices":[1],"mask":[true]}"#);
    assert_eq!(serde_json::to_string(&Reply::Set {}).unwrap(), r#"{"reply":"set"}"#);
}
