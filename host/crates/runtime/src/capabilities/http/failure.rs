//! The failure of an HTTP request: a code of `wasi:http` for the guest, a message for people.

use wasmtime_wasi_http::Error;

use modhost_platform::{CallError, ErrorKind};

/// The failure of an HTTP request.
#[derive(Debug)]
pub(super) struct Failure {
    pub code: HttpErrorCode,
    /// The message for people, with the request. Contains no credentials.
    pub message: String,
}

/// The codes of `wasi:http` that the host uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpErrorCode {
    DnsError,
    DestinationUnavailable,
    DestinationProhibited,
    ConnectionRefused,
    ConnectionTerminated,
    ConnectionTimeout,
    ReadTimeout,
    TlsProtocol,
    TlsCertificate,
    RequestDenied,
    RequestUri,
    RequestBodySize,
    RequestTrailers,
    AnswerIncomplete,
    AnswerHeaders,
    AnswerBodySize,
    AnswerTimeout,
    Protocol,
    Internal,
}

/// Each code with its name in WIT and the kind of its call error.
const CODES: [(HttpErrorCode, &str, ErrorKind); 19] = [
    (HttpErrorCode::DnsError, "DNS-error", ErrorKind::Unavailable),
    (HttpErrorCode::DestinationUnavailable, "destination-unavailable", ErrorKind::Unavailable),
    (HttpErrorCode::DestinationProhibited, "destination-IP-prohibited", ErrorKind::Denied),
    (HttpErrorCode::ConnectionRefused, "connection-refused", ErrorKind::Unavailable),
    (HttpErrorCode::ConnectionTerminated, "connection-terminated", ErrorKind::Unavailable),
    (HttpErrorCode::ConnectionTimeout, "connection-timeout", ErrorKind::Timeout),
    (HttpErrorCode::ReadTimeout, "connection-read-timeout", ErrorKind::Timeout),
    (HttpErrorCode::TlsProtocol, "TLS-protocol-error", ErrorKind::Unavailable),
    (HttpErrorCode::TlsCertificate, "TLS-certificate-error", ErrorKind::Unavailable),
    (HttpErrorCode::RequestDenied, "HTTP-request-denied", ErrorKind::Denied),
    (HttpErrorCode::RequestUri, "HTTP-request-URI-invalid", ErrorKind::Invalid),
    (HttpErrorCode::RequestBodySize, "HTTP-request-body-size", ErrorKind::Invalid),
    (HttpErrorCode::RequestTrailers, "HTTP-request-trailer-section-size", ErrorKind::Invalid),
    (HttpErrorCode::AnswerIncomplete, "HTTP-response-incomplete", ErrorKind::Unavailable),
    (HttpErrorCode::AnswerHeaders, "HTTP-response-header-section-size", ErrorKind::Invalid),
    (HttpErrorCode::AnswerBodySize, "HTTP-response-body-size", ErrorKind::Invalid),
    (HttpErrorCode::AnswerTimeout, "HTTP-response-timeout", ErrorKind::Timeout),
    (HttpErrorCode::Protocol, "HTTP-protocol-error", ErrorKind::Unavailable),
    (HttpErrorCode::Internal, "internal-error", ErrorKind::Unavailable),
];

impl Failure {
    pub fn new(code: HttpErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Adds the request to the message.
    pub fn with_request(self, description: &str) -> Self {
        Self { message: format!("`{description}`: {}", self.message), ..self }
    }

    /// Marks a failure while an answer was being read: a connection that ends then leaves the answer incomplete.
    pub fn incomplete(self) -> Self {
        let code =
            if self.code == HttpErrorCode::ConnectionTerminated { HttpErrorCode::AnswerIncomplete } else { self.code };
        Self { code, ..self }
    }

    /// Returns the error for the guest. Only one of the codes has a message.
    pub fn into_wasi(self) -> Error {
        match self.code {
            HttpErrorCode::DnsError => Error::DnsError { rcode: None, info_code: None },
            HttpErrorCode::DestinationUnavailable => Error::DestinationUnavailable,
            HttpErrorCode::DestinationProhibited => Error::DestinationIpProhibited,
            HttpErrorCode::ConnectionRefused => Error::ConnectionRefused,
            HttpErrorCode::ConnectionTerminated => Error::ConnectionTerminated,
            HttpErrorCode::ConnectionTimeout => Error::ConnectionTimeout,
            HttpErrorCode::ReadTimeout => Error::ConnectionReadTimeout,
            HttpErrorCode::TlsProtocol => Error::TlsProtocolError,
            HttpErrorCode::TlsCertificate => Error::TlsCertificateError,
            HttpErrorCode::RequestDenied => Error::HttpRequestDenied,
            HttpErrorCode::RequestUri => Error::HttpRequestUriInvalid,
            HttpErrorCode::RequestBodySize => Error::HttpRequestBodySize(None),
            HttpErrorCode::RequestTrailers => Error::HttpRequestTrailerSectionSize(None),
            HttpErrorCode::AnswerIncomplete => Error::HttpResponseIncomplete,
            HttpErrorCode::AnswerHeaders => Error::HttpResponseHeaderSectionSize(None),
            HttpErrorCode::AnswerBodySize => Error::HttpResponseBodySize(None),
            HttpErrorCode::AnswerTimeout => Error::HttpResponseTimeout,
            HttpErrorCode::Protocol => Error::HttpProtocolError,
            HttpErrorCode::Internal => Error::InternalError(Some(self.message)),
        }
    }
}

/// The recorded error.
impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        let entry = CODES.into_iter().find(|(code, ..)| *code == failure.code);
        let (word, kind) = entry.map_or(("internal-error", ErrorKind::Unavailable), |(_, word, kind)| (word, kind));
        Self { code: Some(word.to_owned()), ..Self::new(kind, failure.message) }
    }
}

/// The failure of a recorded error. An answer in a test's script has a kind and no code.
impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let entry = CODES.into_iter().find(|(_, word, _)| Some(*word) == error.code.as_deref());
        let default_code = match error.kind {
            ErrorKind::Denied => HttpErrorCode::RequestDenied,
            ErrorKind::Timeout => HttpErrorCode::AnswerTimeout,
            ErrorKind::Unavailable => HttpErrorCode::DestinationUnavailable,
            _ => HttpErrorCode::Internal,
        };
        Self::new(entry.map_or(default_code, |(code, ..)| code), error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_failures_keep_code_and_message() {
        for (code, ..) in CODES {
            let recorded = CallError::from(Failure::new(code, "why"));
            let back = Failure::from(recorded);
            assert_eq!((back.code, back.message.as_str()), (code, "why"));
        }
    }
}
