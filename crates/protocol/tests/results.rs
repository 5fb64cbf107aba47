//! The results file's schema is the committed one, and a foreign file is refused with a reason.

use std::path::Path;

use dpsgd_protocol::results::Results;

fn committed() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/results.schema.json")
}

/// Set `UPDATE_SCHEMA=1` to write the schema anew after a deliberate change.
#[test]
fn the_committed_json_schema_is_the_one_that_the_types_generate() {
    let generated = serde_json::to_string_pretty(&Results::json_schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(committed(), &generated).unwrap();
    }
    let committed = std::fs::read_to_string(committed()).unwrap();
    assert!(committed == generated, "docs/results.schema.json has drifted: run this test with UPDATE_SCHEMA=1");
}

#[test]
fn the_reference_runs_of_before_can_still_be_read() {
    // Those that the list links to: other folders are local runs, which git ignores.
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results");
    let list = std::fs::read_to_string(runs.join("README.md")).unwrap();
    let links = list.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let files: Vec<&str> = links.filter(|target| target.ends_with("/results.json") && !target.contains("..")).collect();
    assert!(!files.is_empty());
    for file in files {
        let results = Results::load(&runs.join(file)).unwrap();
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results, "{file}");
        // A reader of before knows no such field, and refuses fields that it does not know.
        assert!(!text.contains("\"kernels\""), "{file}");
    }
}

#[test]
fn a_file_of_another_schema_version_is_refused_by_naming_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.json");
    std::fs::write(&file, r#"{"schema_version": 7, "whatever": []}"#).unwrap();
    let error = Results::load(&file).unwrap_err().to_string();
    assert!(error.contains("results.json") && error.contains("schema_version = 7") && error.contains("reads 1 to 2"));
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn a_file_that_is_no_results_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.json");
    for text in ["", "[]", "{}", r#"{"schema_version": 1}"#, r#"{"schema_version": "1"}"#] {
        std::fs::write(&file, text).unwrap();
        assert!(Results::load(&file).is_err(), "{text}");
    }
}
