//! The way to the server: connection, credentials, pages.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri};
use tonic::{Request, Status};

use super::failure::Failure;
use super::output;

/// Credentials of `punchline serve --dev`.
const DEV_TOKEN: &str = "dev-operator";
const DEV_ADVERTISER: &str = "1000000001";
/// The most that a list answers at once.
const PAGE_SIZE_MAX: usize = 500;

/// How to reach the server, and as whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub struct ClientOptions {
    /// The server's gRPC address
    #[arg(
        long,
        global = true,
        env = "PUNCHLINE_ENDPOINT",
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    pub endpoint: String,
    /// Operator token, or an access token; without one, a server on loopback is taken for `serve --dev`
    #[arg(long, global = true, env = "PUNCHLINE_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The advertiser, for an operator token; an access token carries its own
    #[arg(long, global = true, env = "PUNCHLINE_ADVERTISER", value_name = "ID")]
    pub advertiser: Option<String>,
    /// The environment, for an operator token
    #[arg(long, global = true, env = "PUNCHLINE_ENVIRONMENT", value_name = "NAME", value_enum)]
    pub environment: Option<EnvironmentName>,
    /// PEM file of the authority that signed the server's certificate; else the public ones are trusted
    #[arg(long, global = true, env = "PUNCHLINE_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Longest that one call may take
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60)]
    pub timeout_s: u64,
}

/// `--environment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EnvironmentName {
    /// The real one.
    Production,
    /// For trying out.
    Staging,
}

/// A connection with credentials.
#[derive(Clone)]
pub(super) struct Client {
    channel: Channel,
    credentials: Credentials,
}

/// What a service's client is made over.
pub(super) type Service = InterceptedService<Channel, Credentials>;

impl Client {
    /// Connects with credentials.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] without a token, [`Failure::Unreachable`] without a server.
    pub(super) async fn connect(options: &ClientOptions) -> Result<Self, Failure> {
        let credentials = Credentials::of(options)?;
        Ok(Self { channel: channel(options).await?, credentials })
    }

    /// What a service's client is made over.
    pub(super) fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), self.credentials.clone())
    }
}

/// Connects without credentials.
///
/// # Errors
///
/// [`Failure::Usage`] if the endpoint is no URL, [`Failure::Unreachable`] without a server.
pub(super) async fn channel(options: &ClientOptions) -> Result<Channel, Failure> {
    let url = &options.endpoint;
    let usage = |why: &dyn std::fmt::Display| Failure::Usage(format!("--endpoint {url}: {why}"));
    let uri: Uri = url.parse().map_err(|error| usage(&error))?;
    let encrypted = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(usage(&"is to begin with http:// or https://")),
    };
    let mut endpoint = Endpoint::from(uri)
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(options.timeout_s))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    let unreachable = |source| Failure::Unreachable { endpoint: url.clone(), source };
    if encrypted {
        let tls = match &options.ca_file {
            Some(path) => {
                let pem = std::fs::read(path)
                    .map_err(|source| Failure::Unreadable { path: path.display().to_string(), source })?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        endpoint = endpoint.tls_config(tls).map_err(unreachable)?;
    }
    endpoint.connect().await.map_err(unreachable)
}

/// Metadata of every call.
#[derive(Clone)]
pub(super) struct Credentials {
    entries: Vec<(&'static str, MetadataValue<Ascii>)>,
}

impl Credentials {
    fn of(options: &ClientOptions) -> Result<Self, Failure> {
        let dev = options.token.is_none() && is_loopback(&options.endpoint);
        let token = match &options.token {
            Some(token) => token.as_str(),
            None if dev => DEV_TOKEN,
            None => return Err(Failure::Usage("no token: give --token or PUNCHLINE_TOKEN".into())),
        };
        let advertiser = options.advertiser.as_deref().or(dev.then_some(DEV_ADVERTISER));
        let environment = options.environment.map(|name| match name {
            EnvironmentName::Production => "production",
            EnvironmentName::Staging => "staging",
        });
        let given = [
            ("authorization", Some(format!("Bearer {token}"))),
            ("punchline-advertiser", advertiser.map(str::to_owned)),
            ("punchline-environment", environment.map(str::to_owned)),
        ];
        let mut entries = Vec::with_capacity(given.len());
        for (name, text) in given {
            let Some(text) = text else { continue };
            // The text may be a secret: the error does not show it.
            let mut value: MetadataValue<Ascii> =
                text.parse().map_err(|_| Failure::Usage(format!("{name} cannot be sent as a header")))?;
            value.set_sensitive(name == "authorization");
            entries.push((name, value));
        }
        Ok(Self { entries })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.entries {
            request.metadata_mut().insert(*name, value.clone());
        }
        Ok(request)
    }
}

fn is_loopback(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// How much of a list is wanted.
#[derive(Args, Clone, Copy, Debug)]
pub struct ListOptions {
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub limit: usize,
}

impl ListOptions {
    /// Asks for pages, by size and token, until there is enough or no more.
    ///
    /// # Errors
    ///
    /// What a call answered.
    pub(super) async fn collect<T>(
        self,
        mut page: impl AsyncFnMut(i32, String) -> Result<(Vec<T>, String), Status>,
    ) -> Result<Vec<T>, Failure> {
        let mut items = Vec::new();
        let mut token = String::new();
        while items.len() < self.limit {
            let size = (self.limit - items.len()).min(PAGE_SIZE_MAX);
            let (more, next_token) = page(size as i32, token).await?;
            items.extend(more);
            token = next_token;
            if token.is_empty() {
                return Ok(items);
            }
        }
        if !token.is_empty() {
            output::note(&format!("there are more than {}: see --limit", items.len()));
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(endpoint: &str, token: Option<&str>) -> ClientOptions {
        ClientOptions {
            endpoint: endpoint.into(),
            token: token.map(str::to_owned),
            advertiser: None,
            environment: None,
            ca_file: None,
            timeout_s: 1,
        }
    }

    #[test]
    fn development_credentials_are_for_loopback_only() {
        let cases = [
            ("http://127.0.0.1:50051", None, Some(("Bearer dev-operator", true))),
            ("http://[::1]:50051", None, Some(("Bearer dev-operator", true))),
            ("http://localhost:1", None, Some(("Bearer dev-operator", true))),
            ("http://127.0.0.1:50051", Some("t"), Some(("Bearer t", false))),
            ("https://punchline.example", Some("t"), Some(("Bearer t", false))),
            ("https://punchline.example", None, None),
            ("http://127.0.0.1.example", None, None),
        ];
        for (endpoint, token, expected) in cases {
            let got = Credentials::of(&options(endpoint, token)).ok();
            let shown = got.map(|credentials| {
                let get = |name| credentials.entries.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
                (
                    get("authorization").expect("always").to_str().expect("ASCII").to_owned(),
                    get("punchline-advertiser").is_some(),
                )
            });
            assert_eq!(shown, expected.map(|(token, dev)| (token.to_owned(), dev)), "{endpoint} {token:?}");
        }
    }

    #[tokio::test]
    async fn lists_are_collected_up_to_the_limit() {
        for (limit, expected) in [(3, 3), (4, 4), (700, 5)] {
            let mut calls = 0;
            let items = ListOptions { limit }
                .collect(async |size, token: String| {
                    calls += 1;
                    let start: usize = token.parse().unwrap_or(0);
                    let end = (start + 2).min(5).min(start + size as usize);
                    let next = if end < 5 { end.to_string() } else { String::new() };
                    Ok(((start..end).collect(), next))
                })
                .await
                .expect("pages");
            assert_eq!(items, (0..expected).collect::<Vec<usize>>(), "{calls} calls");
        }
    }
}
