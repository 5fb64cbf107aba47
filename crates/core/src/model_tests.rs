use super::*;

#[test]
fn every_built_in_model_is_named_after_its_file_and_fits_together() {
    for name in ModelSpec::built_in_names() {
        let model = ModelSpec::built_in(name).unwrap();
        assert_eq!(model.name, name);
        model.validate().unwrap();
    }
}

#[test]
fn parameter_counts_are_those_of_the_paper() {
    assert_eq!(count("logreg"), 105);
    assert_eq!(count("ffnn"), 104 * 50 + 50 + 50 * 2 + 2);
    assert_eq!(count("mnist-cnn"), 26_010);
    assert_eq!(count("embedding"), 10_004 * 16 + 34);
    assert_eq!(count("lstm"), 10_004 * 100 + 400 * 200 + 400 + 202);
}

fn count(name: &str) -> usize {
    let model = ModelSpec::built_in(name).unwrap();
    model.params().iter().map(|param| param.shape.iter().product::<usize>()).sum()
}
