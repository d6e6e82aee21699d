//! Why a request has no answer: for the guest one of the codes of `wasi:http`, for people a sentence.

use wasmtime_wasi_http::Error;

use modhost_platform::{CallError, ErrorKind};

/// Why a request has no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub code: HttpErrorCode,
    /// In a sentence, with the request it is about. Holds no credential.
    pub message: String,
}

/// The codes of `wasi:http` that come to pass here.
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

/// Each code by its name in WIT, with what can be done about it.
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

    /// With the request it is about.
    pub fn about(self, shown: &str) -> Self {
        Self { message: format!("`{shown}`: {}", self.message), ..self }
    }

    /// In the middle of an answer: a connection that ends there has not been refused anything.
    pub fn incomplete(self) -> Self {
        let code =
            if self.code == HttpErrorCode::ConnectionTerminated { HttpErrorCode::AnswerIncomplete } else { self.code };
        Self { code, ..self }
    }

    /// As the guest has it. Hardly any of the codes has room for words.
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

/// As it is recorded.
impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        let known = CODES.into_iter().find(|(code, ..)| *code == failure.code);
        let (word, kind) = known.map_or(("internal-error", ErrorKind::Unavailable), |(_, word, kind)| (word, kind));
        Self { code: Some(word.to_owned()), ..Self::new(kind, failure.message) }
    }
}

/// Out of the record. What a person has written there, as an answer of a test, has a kind and no code.
impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let known = CODES.into_iter().find(|(_, word, _)| Some(*word) == error.code.as_deref());
        let usual = match error.kind {
            ErrorKind::Denied => HttpErrorCode::RequestDenied,
            ErrorKind::Timeout => HttpErrorCode::AnswerTimeout,
            ErrorKind::Unavailable => HttpErrorCode::DestinationUnavailable,
            _ => HttpErrorCode::Internal,
        };
        Self::new(known.map_or(usual, |(code, ..)| code), error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_out_of_the_record_as_it_went_in() {
        for (code, ..) in CODES {
            let recorded = CallError::from(Failure::new(code, "why"));
            let back = Failure::from(recorded);
            assert_eq!((back.code, back.message.as_str()), (code, "why"));
        }
    }
}
