//! Reading what people write: one-line errors that name the file, the place and the nearest valid name.

use std::path::Path;

use serde::de::DeserializeOwned;

/// A file that can't be read or understood. One line: file, line, what is wrong and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{path}{place}: {reason}")]
pub struct InputError {
    /// The file.
    pub path: String,
    /// `:line`, or empty.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

/// Reads a TOML file into `T`. For an unknown key or name the error names the nearest valid one.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, InputError> {
    let failed = |place: String, reason: String| InputError { path: path.display().to_string(), place, reason };
    let text = std::fs::read_to_string(path).map_err(|e| failed(String::new(), e.to_string()))?;
    parse_toml(&text).map_err(|(place, reason)| failed(place, reason))
}

/// As [`read_toml`], for text; the error is (place, reason).
pub(crate) fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, (String, String)> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let place = line.map_or(String::new(), |line| format!(":{line}"));
        (place, with_suggestion(&error.message().replace('\n', " ")))
    })
}

/// Adds "did you mean" to serde's "unknown field `x`, expected one of `a`, `b`".
pub(crate) fn with_suggestion(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((found, valid)) if message.starts_with("unknown ") => match nearest(found, valid.iter().copied()) {
            Some(name) => format!("{message}; did you mean `{name}`?"),
            None => message.to_string(),
        },
        _ => message.to_string(),
    }
}

/// The valid name most like `found`, unless none is at all alike.
pub fn nearest<'a>(found: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    valid
        .into_iter()
        .map(|name| (strsim::jaro_winkler(found, name), name))
        .filter(|(likeness, _)| *likeness > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_answered_with_its_place_and_the_nearest_valid_key() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct Config {
            epochs: u32,
            processes: u32,
        }
        let (place, reason) = parse_toml::<Config>("processes = 1\nepoch = 3\n").unwrap_err();
        assert_eq!(place, ":2");
        assert!(reason.ends_with("did you mean `epochs`?"), "{reason}");
    }
}
