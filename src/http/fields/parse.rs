use std::collections::BTreeMap;
use std::fmt;

use ::http::HeaderValue;
use sfv::{BareItem, List, ListEntry, Parser};

/// One item of a `RateLimit` or `RateLimit-Policy` field, as received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldItem {
    /// The limit's name.
    pub name: String,
    /// Parameters with a whole number: `q`, `w`, `r`, `t` and whatever else was sent.
    pub integers: BTreeMap<String, i64>,
    /// Parameters with a text: `qu`.
    pub texts: BTreeMap<String, String>,
    /// The partition key, `pk`.
    pub partition: Option<Vec<u8>>,
}

/// A field that is not what the draft says; all of it is to be ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldsError(String);

impl fmt::Display for FieldsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a list of limits: {}", self.0)
    }
}

impl std::error::Error for FieldsError {}

/// Reads a `RateLimit` or `RateLimit-Policy` field (draft -08 to -10), all of its lines together.
///
/// # Errors
/// It is not a list of items whose values are strings. Such a field counts as absent, all of it.
pub fn parse_items<'a>(
    lines: impl IntoIterator<Item = &'a HeaderValue>,
) -> Result<Vec<FieldItem>, FieldsError> {
    let lines: Vec<&[u8]> = lines.into_iter().map(HeaderValue::as_bytes).collect();
    let list: List =
        Parser::new(&lines.join(&b","[..])).parse().map_err(|error| FieldsError(error.to_string()))?;
    list.iter().map(item).collect()
}

fn item(entry: &ListEntry) -> Result<FieldItem, FieldsError> {
    let ListEntry::Item(item) = entry else {
        return Err(FieldsError("an inner list stands in place of a name".to_owned()));
    };
    let BareItem::String(name) = &item.bare_item else {
        return Err(FieldsError("a name is not a string".to_owned()));
    };
    let mut found = FieldItem {
        name: name.as_str().to_owned(),
        integers: BTreeMap::new(),
        texts: BTreeMap::new(),
        partition: None,
    };
    for (key, value) in &item.params {
        let key = key.as_str().to_owned();
        match value {
            BareItem::Integer(value) => {
                found.integers.insert(key, i64::from(*value));
            }
            BareItem::String(text) => {
                found.texts.insert(key, text.as_str().to_owned());
            }
            BareItem::ByteSequence(bytes) if key == "pk" => found.partition = Some(bytes.clone()),
            _ => {}
        }
    }
    Ok(found)
}
