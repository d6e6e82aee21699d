//! Origins of outgoing HTTP requests and the patterns that allow them.

use std::fmt;

use url::{Host, Url};

/// A scheme, a host pattern and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `true` for `https`, `false` for `http`.
    pub secure: bool,
    /// The hosts.
    pub host: HostPattern,
    /// The port.
    pub port: u16,
}

/// A pattern of hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `*`: any host.
    Any,
    /// `*.example.com`: every subdomain of this name, but not the name itself.
    Subdomains(String),
    /// This host only.
    Exact(Host<String>),
}

impl Origin {
    /// Parses `[http[s]://]host[:port]`.
    ///
    /// # Errors
    ///
    /// Returns the problem, and advice on what to write instead.
    pub fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        let wrong = |problem: &str, advice| Err((format!("\"{text}\" {problem}"), advice));
        let (secure, rest) = match text.split_once("://") {
            None => (true, text),
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return wrong("is neither http nor https", r#"write for example "https://api.example.com""#),
        };
        if rest.contains('@') {
            // The text is not quoted, because it may contain a password.
            let advice = "write the host alone; a credential goes into `headers` of its entry";
            return Err(("this host has a user before it".into(), advice));
        }
        if rest.contains(['/', '?', '#', '\\']) {
            return wrong(
                "names more than a host",
                r#"write the host alone, as in "api.example.com": all its paths are allowed"#,
            );
        }
        let (host, port) = match rest.rsplit_once(':') {
            // The colons of an IPv6 address are inside its brackets.
            Some((host, port)) if !port.ends_with(']') => match port.parse() {
                Ok(port) if port > 0 => (host, port),
                _ => {
                    return wrong(
                        "has no port behind its colon",
                        r#"write for example "api.example.com:8443", or "[2001:db8::1]""#,
                    );
                }
            },
            _ => (rest, if secure { 443 } else { 80 }),
        };
        let Some(host) = HostPattern::parse(host) else {
            return wrong(
                "is no host",
                r#"write for example "api.example.com", "*.example.com", "192.0.2.7" or "[2001:db8::1]""#,
            );
        };
        Ok(Self { secure, host, port })
    }

    /// Returns the origin of a request's URL; `None` if the scheme is not HTTP.
    pub fn of(url: &Url) -> Option<Self> {
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (host, port) = (url.host()?.to_owned(), url.port_or_known_default()?);
        Some(Self { secure, host: HostPattern::Exact(host), port })
    }

    /// Returns whether this pattern allows the origin of a request.
    pub fn allows(&self, requested: &Self) -> bool {
        self.secure == requested.secure && self.port == requested.port && self.host.allows(&requested.host)
    }
}

impl HostPattern {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        if name.contains('*') {
            return None;
        }
        match Host::parse(name).ok()? {
            Host::Domain(name) if below => Some(Self::Subdomains(name)),
            _ if below => None,
            host => Some(Self::Exact(host)),
        }
    }

    /// Returns whether it matches a single host.
    pub fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }

    /// Returns whether this pattern allows the host of a request.
    pub fn allows(&self, requested: &Self) -> bool {
        match (self, requested) {
            (Self::Any, _) => true,
            (Self::Subdomains(name), Self::Exact(Host::Domain(requested))) => requested
                .strip_suffix(name.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|it| !it.is_empty()),
            (one, other) => one == other,
        }
    }
}

/// Formats the origin as in the file, without the default scheme and port.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.secure {
            f.write_str("http://")?;
        }
        match &self.host {
            HostPattern::Any => f.write_str("*")?,
            HostPattern::Subdomains(name) => write!(f, "*.{name}")?,
            HostPattern::Exact(host) => write!(f, "{host}")?,
        }
        let default = if self.secure { 443 } else { 80 };
        if self.port == default { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).unwrap_or_else(|(problem, _)| panic!("{problem}"))
    }

    fn of(url: &str) -> Origin {
        Origin::of(&Url::parse(url).unwrap()).unwrap()
    }

    #[test]
    fn allows_one_scheme_and_one_port() {
        for (entry, allowed) in [
            ("api.example.com", "https://api.example.com/x?y"),
            ("https://API.example.com:8443", "https://api.example.com:8443"),
            ("http://api.example.com", "http://api.example.com:80/"),
            ("*.example.com", "https://a.b.example.com"),
            ("*", "https://anything.at.all"),
            ("bücher.example", "https://xn--bcher-kva.example"),
            ("127.0.0.1:81", "https://127.1:81"),
            ("http://[::1]:8080", "http://[0::1]:8080"),
        ] {
            assert!(origin(entry).allows(&of(allowed)), "{entry} {allowed}");
        }
        for (entry, other) in [
            ("api.example.com", "http://api.example.com:443"),
            ("api.example.com", "https://api.example.com:444"),
            ("api.example.com", "https://api.example.com.evil.test"),
            ("api.example.com", "https://xapi.example.com"),
            ("api.example.com", "https://api.example.com."),
            ("*.example.com", "https://example.com"),
            ("*.example.com", "https://badexample.com"),
            ("*.example.com", "https://.example.com"),
            ("*", "http://anything.at.all"),
        ] {
            assert!(!origin(entry).allows(&of(other)), "{entry} {other}");
        }
    }

    #[test]
    fn formats_origins_as_written() {
        for text in ["api.example.com", "http://api.example.com", "*.example.com:8443", "*", "http://[::1]:8080"] {
            assert_eq!(origin(text).to_string(), text);
        }
        assert_eq!(origin("https://api.example.com:443").to_string(), "api.example.com");
    }

    #[test]
    fn rejects_invalid_origins() {
        for text in [
            "ftp://a",
            "a/b",
            "https://a/",
            "user:pw@a",
            "a:0",
            "a:99999",
            "a:",
            "::1",
            "*a.b",
            "a.*",
            "*.1.2.3.4",
            "",
            "a b",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }
}
