use std::path::Path;

use dpsgd_data::{load, names};

use super::{assert_contains, built_in};

#[test]
fn every_name_loads_for_a_built_in_model() {
    for (name, description) in names() {
        let model = match *name {
            "adult" | "synthetic" => "ffnn",
            "adult-age" => "ffnn-regression",
            "mnist" => "mnist-cnn",
            "cifar10" => "cifar10-cnn",
            "imdb" => "embedding",
            other => panic!("no model for {other}"),
        };
        let loaded = load(name, &built_in(model), Some(3), None, 0).unwrap();
        assert_eq!(loaded.dataset.len(), 3);
        assert_eq!(loaded.real, description.contains("real") && !description.contains("otherwise synthetic"));
        assert_eq!(loaded.source.lines().count(), 1);
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest_one() {
    let error = load("minst", &built_in("ffnn"), None, None, 0).unwrap_err().to_string();
    assert_contains(&error, &["`minst`", "`adult`, `adult-age`, `mnist`", "did you mean `mnist`?"]);
}

#[test]
fn no_examples_and_a_folder_that_is_not_there_are_errors() {
    let error = load("mnist", &built_in("mnist-cnn"), Some(0), None, 0).unwrap_err().to_string();
    assert_contains(&error, &["examples = 0", "above 0"]);
    let error = load("mnist", &built_in("mnist-cnn"), None, Some(Path::new("/nowhere/at/all")), 0).unwrap_err();
    assert_contains(&error.to_string(), &["/nowhere/at/all", "no such folder"]);
}
