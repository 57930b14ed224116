use std::fmt;

use ::http::Uri;

/// What servers are told apart by: scheme, host and port. One server's word must not slow another down, so guards are
/// kept by it.
///
/// ```
/// use tollgate::client::Origin;
/// let origin = Origin::of(&"HTTPS://user@Example.com/path?query".parse()?);
/// assert_eq!(origin.to_string(), "https://example.com:443");
/// assert_eq!(origin, Origin::of(&"https://example.com:443".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(Box<str>);

impl Origin {
    /// The origin of a URL. All URLs without a host have the same one: a client that sends them knows one server.
    #[must_use]
    pub fn of(url: &Uri) -> Self {
        let Some(host) = url.host() else { return Self("".into()) };
        let scheme = url.scheme_str().unwrap_or("http").to_ascii_lowercase();
        let port = url.port_u16().unwrap_or(match &*scheme {
            "https" | "wss" => 443,
            _ => 80,
        });
        Self(format!("{scheme}://{}:{port}", host.to_ascii_lowercase()).into())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
