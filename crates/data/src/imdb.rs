//! IMDb movie reviews (`aclImdb`), as token sequences.
//!
//! Tokenizer: `<br />` is a space; text is lower-cased; a word is a maximal run of letters, digits and apostrophes,
//! without the apostrophes at its ends.
//!
//! Numbering, as Keras does it: 0 pads, 1 starts a review, 2 is an unknown word, 3 is unused, and 4 onwards are the
//! words by falling frequency over all training reviews, ties in byte order, as many as the model's vocabulary has room for
//! (10,000 in the paper's models). A review longer than the model's sequence keeps its end, a shorter one is padded at its
//! front.
//!
//! Order: by the number in the file's name, positive and negative reviews in turn, so that every batch and every capped
//! set has both classes.
//!
//! No SHA-256 of the single files is published; a set that has not the 12,500 reviews of each kind that the authors state
//! is used with a warning.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use dpsgd_core::{Inputs, ModelInput};

use crate::DataError;
use crate::catalog::{Examples, Request, folder_with, grouped, listed};

/// Number of training reviews.
pub(crate) const EXAMPLES: usize = 25_000;
/// Token ids before the first word.
pub(crate) const SPECIALS: usize = 4;
const START: i32 = 1;
const UNKNOWN: i32 = 2;
const FIX: &str = "unpack IMDb's aclImdb there, or name no folder to use synthetic data";

/// The model's sequence length and vocabulary.
pub(crate) fn sizes(request: &Request) -> Result<(usize, usize), DataError> {
    match request.model.input {
        ModelInput::Tokens { time, vocabulary } if vocabulary > SPECIALS => Ok((time, vocabulary)),
        ModelInput::Tokens { vocabulary, .. } => {
            let reason =
                format!("the model's vocabulary is {vocabulary}: must be above {SPECIALS}, the special tokens");
            Err(request.unsuitable(reason))
        }
        _ => {
            let (model, input) = (&request.model.name, request.model.input.shape());
            let fix = "change the model's input, or use data `synthetic`";
            Err(request.unsuitable(format!("its examples are tokens, model `{model}` takes {input}: {fix}")))
        }
    }
}

/// Reads the set from the user's folder.
pub(crate) fn load(request: &Request, root: &Path) -> Result<Examples, DataError> {
    let (time, vocabulary) = sizes(request)?;
    let folders = [root.join("imdb").join("aclImdb"), root.join("imdb"), root.join("aclImdb"), root.to_path_buf()];
    let train = |folder: &Path| folder.join("train");
    let holds = |folder: &Path| train(folder).join("pos").is_dir() || train(folder).join("neg").is_dir();
    let Some(folder) = folder_with(&folders, holds) else {
        let looked_at = listed(&folders.map(|folder| train(&folder).join("pos")));
        return Err(DataError::Missing { name: "imdb", looked_at, fix: FIX });
    };
    let positive = reviews(&train(&folder).join("pos"))?;
    let negative = reviews(&train(&folder).join("neg"))?;
    let mut warnings = Vec::new();
    if positive.len() != EXAMPLES / 2 || negative.len() != EXAMPLES / 2 {
        let (folder, found) = (folder.display(), (positive.len(), negative.len()));
        warnings.push(format!(
            "{folder}: unrecognized content, used as it is: {} positive and {} negative reviews, not 12500 each",
            found.0, found.1
        ));
    }
    let files = in_turn(positive, negative);
    let total = files.len();
    let words = rank_words(&files, vocabulary - SPECIALS)?;

    let count = total.min(request.limit);
    let mut tokens = Vec::with_capacity(count * time);
    let mut classes = Vec::with_capacity(count);
    let mut review = Vec::new();
    for (path, class) in &files[..count] {
        review.clear();
        review.push(START);
        let text = read(path)?;
        for_each_word(&text, |word| review.push(words.get(word).copied().unwrap_or(UNKNOWN)));
        let kept = &review[review.len().saturating_sub(time)..];
        tokens.extend(std::iter::repeat_n(0, time - kept.len()).chain(kept.iter().copied()));
        classes.push(*class);
    }
    let source = format!("IMDb: {} of {} reviews, {}", grouped(count), grouped(total), folder.display());
    let targets = request.classes(classes, 2)?;
    Ok(Examples { shape: vec![time], inputs: Inputs::Tokens(tokens), targets, source, warnings })
}

/// The `.txt` files of a folder by the number that their names begin with.
fn reviews(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let entries = std::fs::read_dir(folder).map_err(|e| DataError::file(folder, e))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| DataError::file(folder, e))?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let number = name.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
            files.push((number.unwrap_or(u64::MAX), name, path));
        }
    }
    if files.is_empty() {
        return Err(DataError::Content {
            path: folder.display().to_string(),
            found: "no .txt file".into(),
            expected: "12500 reviews".into(),
            fix: FIX,
        });
    }
    files.sort();
    Ok(files.into_iter().map(|(_, _, path)| path).collect())
}

/// Positive (class 1) and negative (class 0) in turn; what is left of the longer list at the end.
fn in_turn(positive: Vec<PathBuf>, negative: Vec<PathBuf>) -> Vec<(PathBuf, i32)> {
    let mut files = Vec::with_capacity(positive.len() + negative.len());
    let (mut positive, mut negative) = (positive.into_iter(), negative.into_iter());
    loop {
        let pair = (positive.next(), negative.next());
        if pair == (None, None) {
            return files;
        }
        files.extend(pair.0.map(|path| (path, 1)));
        files.extend(pair.1.map(|path| (path, 0)));
    }
}

/// The `limit` most frequent words with their token ids.
fn rank_words(files: &[(PathBuf, i32)], limit: usize) -> Result<HashMap<String, i32>, DataError> {
    let mut counts: HashMap<String, u32> = HashMap::new();
    for (path, _) in files {
        for_each_word(&read(path)?, |word| match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => {
                counts.insert(word.to_string(), 1);
            }
        });
    }
    let mut ranked: Vec<(String, u32)> = counts.into_iter().collect();
    ranked.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    ranked.truncate(limit);
    Ok(ranked.into_iter().zip(SPECIALS as i32..).map(|((word, _), id)| (word, id)).collect())
}

fn read(path: &Path) -> Result<String, DataError> {
    let bytes = std::fs::read(path).map_err(|e| DataError::file(path, e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn for_each_word(text: &str, mut each: impl FnMut(&str)) {
    let text = text.replace("<br />", " ").to_lowercase();
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '\'') {
        let word = word.trim_matches('\'');
        if !word.is_empty() {
            each(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_runs_of_letters_digits_and_inner_apostrophes() {
        let mut words = Vec::new();
        for_each_word("It's 'GREAT'!<br /><br />10/10, caf\u{c9} -- don't", |word| words.push(word.to_string()));
        assert_eq!(words, ["it's", "great", "10", "10", "caf\u{e9}", "don't"]);
    }
}
