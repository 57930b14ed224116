use std::fmt;
use std::sync::Arc;

/// The name of a limit, as refusals, headers and metrics carry it: printable ASCII, 1 to 128 bytes.
///
/// ```
/// use tollgate::Name;
/// assert_eq!(Name::new("per-client")?.as_str(), "per-client");
/// assert!(Name::new("two\r\nlines").is_err());
/// # Ok::<(), tollgate::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// The longest name, in bytes.
const LONGEST: usize = 128;

impl Name {
    /// The name `text`.
    ///
    /// # Errors
    /// It is empty, too long, or has a character that could not stand in a header.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, NameError> {
        let text = text.into();
        match text.bytes().position(|byte| !(b' '..=b'~').contains(&byte)) {
            Some(at) => Err(NameError::NotPrintable { at }),
            None if text.is_empty() => Err(NameError::Empty),
            None if text.len() > LONGEST => Err(NameError::TooLong { bytes: text.len() }),
            None => Ok(Self(text)),
        }
    }

    #[cfg(feature = "metrics")]
    pub(crate) const fn shared(&self) -> &Arc<str> {
        &self.0
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text cannot name a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// It has no character.
    Empty,
    /// It has more than 128 bytes.
    TooLong {
        /// Bytes it has.
        bytes: usize,
    },
    /// It has a character that is not printable ASCII.
    NotPrintable {
        /// Where, in bytes from the start.
        at: usize,
    },
}

impl From<std::convert::Infallible> for NameError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a limit's name must not be empty: leave the name out instead"),
            Self::TooLong { bytes } => {
                write!(f, "a limit's name of {bytes} bytes is too long: use at most {LONGEST}")
            }
            Self::NotPrintable { at } => {
                write!(f, "a limit's name must be printable ASCII: the byte at {at} is not")
            }
        }
    }
}

impl std::error::Error for NameError {}
