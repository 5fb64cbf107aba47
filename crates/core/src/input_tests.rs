use super::*;

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    epochs: u32,
    processes: u32,
}

fn error(text: &str) -> (String, String) {
    parse_toml::<Config>(text).unwrap_err()
}

#[test]
fn an_unknown_key_is_answered_with_its_place_and_the_nearest_valid_key() {
    let (place, reason) = error("processes = 1\nepoch = 3\n");
    assert_eq!(place, ":2");
    assert_eq!(reason, "unknown field `epoch`, expected `epochs` or `processes`; did you mean `epochs`?");
}

#[test]
fn a_key_unlike_any_valid_one_gets_no_suggestion() {
    let (_, reason) = error("zzz = 3\n");
    assert_eq!(reason, "unknown field `zzz`, expected `epochs` or `processes`");
}

#[test]
fn an_error_is_one_line_whatever_is_wrong() {
    for text in ["epochs = ", "epochs = 1\nepochs = 2\n", "epochs = 'many'\nprocesses = 1", "[[", "epochs = -1", ""] {
        let (place, reason) = error(text);
        assert!(!reason.contains('\n') && !reason.is_empty(), "{reason:?}");
        assert!(place.strip_prefix(':').is_some_and(|line| line.parse::<u32>().is_ok()), "{place:?}");
    }
}

#[test]
fn a_file_is_read_and_an_error_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, "epochs = 2\nprocesses = 3\n").unwrap();
    assert_eq!(read_toml::<Config>(&path).unwrap(), Config { epochs: 2, processes: 3 });
    std::fs::write(&path, "epochs = 2\n\nprocess = 3\n").unwrap();
    let message = read_toml::<Config>(&path).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}:3: unknown field `process`", path.display())), "{message}");
    let absent = folder.path().join("absent.toml");
    let message = read_toml::<Config>(&absent).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}: ", absent.display())), "{message}");
}

#[test]
fn the_nearest_name_is_the_most_alike() {
    let names = ["mnist-cnn", "ffnn", "ffnn-regression", "lstm"];
    assert_eq!(nearest("fnn", names), Some("ffnn"));
    assert_eq!(nearest("mnist", names), Some("mnist-cnn"));
    assert_eq!(nearest("qqqq", names), None);
    assert_eq!(nearest("resnet", ["mnist-cnn", "lstm"]), None);
    assert_eq!(nearest("any", []), None);
}
