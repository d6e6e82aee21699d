//! Origins of outgoing HTTP requests and the patterns that allow them.

use std::fmt;

use url::{Host, Url};

/// Hosts, with how they are spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether it is `https`; `http` otherwise.
    pub secure: bool,
    /// Which hosts.
    pub host: HostPattern,
    /// The port.
    pub port: u16,
}

/// Which hosts an entry means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `*`: any.
    Any,
    /// `*.example.com`: every name below this one, and not the name itself.
    Below(String),
    /// This one.
    One(Host<String>),
}

impl Origin {
    /// Reads `[http[s]://]host[:port]`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what to write.
    pub fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        let wrong = |problem: &str, advice| Err((format!("\"{text}\" {problem}"), advice));
        let (secure, rest) = match text.split_once("://") {
            None => (true, text),
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return wrong("is neither http nor https", r#"write for example "https://api.example.com""#),
        };
        if rest.contains('@') {
            // Not repeated: there may be a password in it.
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

    /// The origin of a request, if it is one over HTTP.
    pub fn of(url: &Url) -> Option<Self> {
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (host, port) = (url.host()?.to_owned(), url.port_or_known_default()?);
        Some(Self { secure, host: HostPattern::One(host), port })
    }

    /// Whether another one, of a request, is among those this one means.
    pub fn allows(&self, asked: &Self) -> bool {
        self.secure == asked.secure && self.port == asked.port && self.host.allows(&asked.host)
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
            Host::Domain(name) if below => Some(Self::Below(name)),
            _ if below => None,
            host => Some(Self::One(host)),
        }
    }

    /// Whether it means a single host.
    pub fn is_one(&self) -> bool {
        matches!(self, Self::One(_))
    }

    /// Whether another pattern, of a request, is among those this one means.
    pub fn allows(&self, asked: &Self) -> bool {
        match (self, asked) {
            (Self::Any, _) => true,
            (Self::Below(name), Self::One(Host::Domain(asked))) => asked
                .strip_suffix(name.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|it| !it.is_empty()),
            (one, other) => one == other,
        }
    }
}

/// As it is written in the file: what goes without saying is left out.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.secure {
            f.write_str("http://")?;
        }
        match &self.host {
            HostPattern::Any => f.write_str("*")?,
            HostPattern::Below(name) => write!(f, "*.{name}")?,
            HostPattern::One(host) => write!(f, "{host}")?,
        }
        let usual = if self.secure { 443 } else { 80 };
        if self.port == usual { Ok(()) } else { write!(f, ":{}", self.port) }
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
    fn an_entry_means_one_scheme_and_one_port() {
        for (entry, meant) in [
            ("api.example.com", "https://api.example.com/x?y"),
            ("https://API.example.com:8443", "https://api.example.com:8443"),
            ("http://api.example.com", "http://api.example.com:80/"),
            ("*.example.com", "https://a.b.example.com"),
            ("*", "https://anything.at.all"),
            ("bücher.example", "https://xn--bcher-kva.example"),
            ("127.0.0.1:81", "https://127.1:81"),
            ("http://[::1]:8080", "http://[0::1]:8080"),
        ] {
            assert!(origin(entry).allows(&of(meant)), "{entry} {meant}");
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
    fn is_shown_as_it_is_written() {
        for text in ["api.example.com", "http://api.example.com", "*.example.com:8443", "*", "http://[::1]:8080"] {
            assert_eq!(origin(text).to_string(), text);
        }
        assert_eq!(origin("https://api.example.com:443").to_string(), "api.example.com");
    }

    #[test]
    fn what_is_no_origin_is_refused() {
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
