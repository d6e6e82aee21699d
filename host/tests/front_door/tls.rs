//! Tests of TLS without a proxy: real handshakes, and certificates that change.

use modhost_core::secret::Secret;
use modhost_emulator as local;
use modhost_ingress::sources::schemes::unique;
use rcgen::CertifiedKey;
use reqwest::{Certificate, Client, ClientBuilder, Error, Response, StatusCode, Version};
use tempfile::TempDir;

use super::harness::{Host, Settings, Wire, http, modhost, now, until, user_message};

const VARIABLES: &[(&str, &str)] = &[
    ("TEST_API_BASE", "http://127.0.0.1:1"),
    ("TEST_APP_ID", "app"),
    ("TEST_API_KEY", "key"),
    ("TEST_ENDPOINT_SECRET", local::ENDPOINT_SECRET),
];

const TLS: &str = r#"tls = { certificate = "cert.pem", key = "file:key.pem" }"#;

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        Self { certificate: cert.pem(), key: signing_key.serialize_pem() }
    }

    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), &self.certificate).unwrap();
        std::fs::write(folder.path().join("key.pem"), &self.key).unwrap();
        folder
    }

    /// A client that trusts only this certificate.
    fn client(&self, host: &Host, build: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
        http(); // installs the TLS provider
        let own = Certificate::from_pem(self.certificate.as_bytes()).unwrap();
        let client = Client::builder().no_proxy().pool_max_idle_per_host(0).tls_certs_only([own]);
        build(client.resolve("localhost", host.socket())).build().unwrap()
    }

    /// Posts an event over TLS; fails unless the host presents this certificate.
    async fn post(&self, host: &Host) -> Result<Response, Error> {
        self.post_as(host, |client| client).await
    }

    async fn post_as(
        &self,
        host: &Host,
        build: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Response, Error> {
        let body = user_message("evt_1", "hello").to_string();
        let signature = unique::sign(&Secret::new(local::ENDPOINT_SECRET), body.as_bytes());
        let url = format!("https://localhost:{}/webhook", host.socket().port());
        let request = self.client(host, build).post(url).header("x-unique-signature", signature);
        request.header("x-unique-created-at", now().to_string()).body(body).send().await
    }
}

async fn start(pair: &Pair, server: &str) -> Host {
    let folder = pair.folder();
    std::fs::write(folder.path().join("modules.toml"), Settings::new().server(server).text()).unwrap();
    Host::serve(folder, VARIABLES, None).await
}

#[tokio::test]
async fn accepts_events_over_tls() {
    let pair = Pair::new();
    let host = start(&pair, TLS).await;
    assert!(host.webhook.starts_with("https://"), "{}", host.output());
    let answer = pair.post(&host).await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2), "both sides support HTTP/2");
    let answer = pair.post_as(&host, ClientBuilder::http1_only).await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_11));
    let old = |client: ClientBuilder| client.tls_version_max(reqwest::tls::Version::TLS_1_2);
    assert_eq!(pair.post_as(&host, old).await.unwrap().status(), StatusCode::OK);
    assert!(Pair::new().post(&host).await.is_err(), "an untrusted certificate was accepted");
    // The admin listener doesn't use TLS: operators are on this machine.
    assert_eq!(host.health().await["status"], "ok");
}

#[tokio::test]
async fn explains_plain_http_on_the_tls_port() {
    let pair = Pair::new();
    let limits = r#"limits = { header_timeout = "300ms" }"#;
    let host = start(&pair, &format!("{TLS}\n{limits}")).await;
    let answer = http().post(host.webhook.replace("https://", "http://")).body("{}").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "a platform that switches to https must retry");
    assert_eq!(answer.headers()["retry-after"], "60");
    assert!(answer.text().await.unwrap().contains("has to begin with https://"));
    host.logged(&["WARN", "plain HTTP request", "client=127.0.0.1"]).await;
    for said in [b"".as_slice(), b"\x16", b"\x16\x03\x01\x00\xff\x01", b"\x16\x03\x01\xff\xff nonsense"] {
        let mut wire = Wire::to(&host).await;
        wire.send(said).await;
        wire.closed().await;
    }
    assert_eq!(pair.post(&host).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn reloads_the_certificate() {
    let (old, new) = (Pair::new(), Pair::new());
    let host = start(&old, TLS).await;
    assert_eq!(old.post(&host).await.unwrap().status(), StatusCode::OK);
    // Renewal tools write the two files one after the other; in between they don't match.
    host.save("key.pem", &new.key);
    let error_words = ["ERROR", "cannot reload the certificate"];
    host.logged(&error_words).await;
    assert!(host.log().contains("key.pem is not the key of the certificate in "), "{}", host.log());
    assert_eq!(old.post(&host).await.unwrap().status(), StatusCode::OK);
    host.save("cert.pem", &new.certificate);
    host.logged(&["certificate reloaded"]).await;
    assert_eq!(new.post(&host).await.unwrap().status(), StatusCode::OK);
    assert!(old.post(&host).await.is_err());
    assert!(!host.log().contains("PRIVATE KEY"), "{}", host.log());
}

#[tokio::test]
async fn invalid_certificate_keeps_the_old_one() {
    let pair = Pair::new();
    let host = start(&pair, TLS).await;
    let broken = pair.certificate.replacen('M', "!", 3);
    let nothing = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (content, words) in [
        ("", "holds no certificate"),
        (&broken, "can't be read"),
        ("hello", "holds no certificate"),
        (nothing, "can't be used"),
    ] {
        let before = host.lines(&["cannot reload the certificate"]);
        host.save("cert.pem", content);
        until(words, async || (host.lines(&["cannot reload the certificate"]) > before).then_some(())).await;
        until(words, async || host.log().lines().rev().take(4).any(|it| it.contains(words)).then_some(())).await;
        assert_eq!(pair.post(&host).await.unwrap().status(), StatusCode::OK);
    }
    std::fs::remove_file(host.file("cert.pem")).unwrap();
    until("the missing file to be reported", async || host.log().contains("there is no file").then_some(())).await;
    assert_eq!(pair.post(&host).await.unwrap().status(), StatusCode::OK);
    host.save("cert.pem", &pair.certificate);
    host.logged(&["certificate reloaded"]).await;
}

#[tokio::test]
async fn refuses_to_start_without_a_valid_certificate() {
    let pair = Pair::new();
    let folder = pair.folder();
    std::fs::write(folder.path().join("key.pem"), "not a key").unwrap();
    std::fs::write(folder.path().join("modules.toml"), Settings::new().server(TLS).text()).unwrap();
    let ran = modhost(folder.path(), "serve", &["--port", "0", "--admin-port", "0"], VARIABLES).await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("modules.toml:3:") && ran.stderr.contains("key.pem holds no private key"),
        "{}",
        ran.stderr
    );
}

#[tokio::test]
async fn enabling_tls_needs_a_restart() {
    let pair = Pair::new();
    let host = start(&pair, "").await;
    host.save_settings(&Settings::new().server(TLS));
    host.logged(&["WARN", "change in [server] takes effect after a restart", "setting=\"tls\""]).await;
    assert_eq!(http().get(host.webhook.replace("/webhook", "/health")).send().await.unwrap().status(), StatusCode::OK);
}
