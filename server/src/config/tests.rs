use super::{Config, Origin, Sources};

struct Case {
    file: &'static str,
    env: &'static [(&'static str, &'static str)],
    flags: &'static [(&'static str, &'static str)],
    dev: bool,
}

const NOTHING: Case = Case { file: "", env: &[], flags: &[], dev: false };

fn load(case: &Case) -> Result<Config, String> {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    std::fs::write(file.path(), case.file).expect("written");
    let env = case.env.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    let flags = case.flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let sources = Sources { dev: case.dev, file: Some(file.path().to_owned()), env, flags };
    let name = file.path().display().to_string();
    Config::load(&sources).map_err(|error| error.to_string().replace(&name, "F"))
}

#[test]
fn the_later_layer_wins() {
    let file = "[ingest]\nqueue_max = 100\n";
    let env: &[(&str, &str)] = &[("PUNCHLINE_INGEST__QUEUE_MAX", "1_000")];
    let flags: &[(&str, &str)] = &[("ingest.queue_max", "200")];
    let cases = [
        (NOTHING, 16_384, "default"),
        (Case { file, ..NOTHING }, 100, ":2"),
        (Case { file, env, ..NOTHING }, 1_000, "environment variable PUNCHLINE_INGEST__QUEUE_MAX"),
        (Case { file, env, flags, ..NOTHING }, 200, "command line"),
    ];
    for (case, queue_max, origin) in cases {
        let config = load(&case).expect("valid");
        assert_eq!(config.ingest.queue_max, queue_max);
        let shown = config.origins["ingest.queue_max"].to_string();
        assert!(shown.ends_with(origin), "{shown}");
    }
}

#[test]
fn mistakes_are_told_with_their_place_and_what_was_meant() {
    let cases: &[(&str, &str)] = &[
        (
            "[server]\n\ngrcp_bind = \"127.0.0.1:1\"",
            "F:3: unknown key server.grcp_bind; did you mean server.grpc_bind?",
        ),
        ("[servr]\nhttp_bind = \"\"", "F:2: unknown key servr.http_bind; did you mean server.http_bind?"),
        ("[sever]\n", "F:1: unknown key sever; did you mean server?"),
        ("data_dir = \"x\"", "F:1: unknown key data_dir; did you mean storage.data_dir?"),
        (
            "[ingest]\nzzz_qqqqqq = 1",
            "F:2: unknown key ingest.zzz_qqqqqq; the sections are backup, delivery, ingest, log",
        ),
        ("server = 5", "F:1: server is a section, not a value"),
        ("[ingest]\nqueue_max = \"many\"", "F:2: ingest.queue_max = \"many\" is to be of type integer, not string"),
        ("[ingest]\nqueue_max = 3", "F:2: ingest.queue_max = 3 is to be from 16 to 1048576"),
        ("[ingest]\nqueue_max = -1", "F:2: ingest.queue_max = -1 is to be from"),
        ("[server]\nhttp_bind = \"8080\"", "F:2: server.http_bind = \"8080\" is to be an address and a port"),
        ("[log]\nformat = \"xml\"", "F:2: log.format = \"xml\" is to be \"text\" or \"json\""),
        ("[log]\nfilter = \"a=loudest\"", "F:2: log.filter = \"a=loudest\" is no filter"),
        ("[delivery]\nallow_private = [\"10.0.0.0/33\"]", "holds \"10.0.0.0/33\", which is no network"),
        ("[server.tls]\ncert_file = \"a\"", "F:2: server.tls.cert_file = \"a\" needs server.tls.key_file too"),
        ("[storage]\ndata_dir = \"\"", "F:2: storage.data_dir = \"\" is not to be empty"),
        ("[server]\nhttp_bind = ", "F:2: "),
        ("[security]\noperator_token = \"short\"", "F:2: security.operator_token is to have at least 12 characters"),
        ("[security]\noperator_token = [\"short\"]", "F:2: security.operator_token is to be of type string, not array"),
        ("[security]\nmaster_key = \"AAAA\"", "F:2: security.master_key is not base64 of 32 bytes"),
    ];
    for (file, expected) in cases {
        let told = load(&Case { file, ..NOTHING }).expect_err(file);
        assert!(told.contains(expected), "{file}\n  told: {told}\n  want: {expected}");
        assert!(!told.contains("short") && !told.contains("AAAA"), "a secret is shown: {told}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let env = &[("PUNCHLINE_LOG__FORMAT", "xml"), ("PUNCHLINE_LOG__FILTR", "info")];
    let told = load(&Case { file: "[ingest]\nqueue_max = 1\n", env, ..NOTHING }).expect_err("wrong");
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(
        told.contains("environment variable PUNCHLINE_LOG__FILTR: unknown key log.filtr; did you mean log.filter?")
    );
}

#[test]
fn the_environment_has_types_files_and_strangers() {
    let token = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(token.path(), "out-of-a-file-1\n").expect("written");
    let path = token.path().display().to_string();
    let env = [
        ("PUNCHLINE_SECURITY__OPERATOR_TOKEN_FILE", path.as_str()),
        ("PUNCHLINE_SERVER__TLS__CERT_FILE", "/c.pem"),
        ("PUNCHLINE_SERVER__TLS__KEY_FILE", "/k.pem"),
        ("PUNCHLINE_DELIVERY__ALLOW_HTTP", "true"),
        ("PUNCHLINE_DELIVERY__ALLOW_PRIVATE", "10.0.0.0/8, ::1/128"),
        ("PUNCHLINE_TOKEN", "an option of the command line"),
        ("PUNCHLINE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("HOME", "/root"),
    ];
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    let config = Config::load(&Sources { env, ..Sources::default() }).expect("valid");
    assert_eq!(config.security.operator_token.expose(), "out-of-a-file-1");
    assert_eq!(config.server.tls.expect("tls").cert_file.to_str(), Some("/c.pem"));
    assert!(config.delivery.allow_http);
    assert_eq!(config.delivery.allow_private.len(), 2);
}

#[test]
fn nothing_of_the_environment_is_ignored() {
    use std::os::unix::ffi::OsStrExt as _;
    let odd = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).to_owned();
    let cases = [
        (
            vec![
                ("PUNCHLINE_SECURITY__OPERATOR_TOKEN", odd(b"hush-hush-hush")),
                ("PUNCHLINE_SECURITY__OPERATOR_TOKEN_FILE", odd(b"/token")),
            ],
            Some("security.operator_token is set by PUNCHLINE_SECURITY__OPERATOR_TOKEN too"),
        ),
        (vec![("PUNCHLINE_STORAGE__DATA_DIR", odd(b"/x\xff"))], Some("storage.data_dir is not UTF-8")),
        (vec![("PUNCHLINE_SECURITY__MASTER_KEY_FILE", odd(b"/x\xff"))], Some("security.master_key is not UTF-8")),
        (vec![("PUNCHLINE_TOKEN", odd(b"\xff")), ("HOME", odd(b"\xff"))], None),
    ];
    for (env, expected) in cases {
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let told = Config::load(&Sources { env, ..Sources::default() }).err().map(|error| error.to_string());
        let right = match expected {
            Some(expected) => told.as_ref().is_some_and(|told| told.contains(expected) && !told.contains("hush")),
            None => told.is_none(),
        };
        assert!(right, "{told:?}");
    }
}

#[test]
fn secrets_do_not_show() {
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let flags: Vec<(String, String)> =
        vec![("security.operator_token".into(), "hush-hush-hush".into()), ("security.master_key".into(), key.into())];
    let config = Config::load(&Sources { flags, ..Sources::default() }).expect("valid");
    assert_eq!(config.security.master_key_bytes().expect("set")[31], 31);
    let json = serde_json::to_string(&config).expect("json");
    for shown in [format!("{config:?}"), config.to_toml(), json] {
        assert!(!shown.contains("hush") && !shown.contains(key), "{shown}");
        assert!(shown.contains("<redacted>"), "{shown}");
    }
    assert!(config.to_toml().contains("operator_token = \"<redacted>\"  # command line"), "{}", config.to_toml());
}

#[test]
fn what_is_printed_can_be_read_back() {
    let config = load(&NOTHING).expect("valid");
    let again = load(&Case { file: Box::leak(config.to_toml().into_boxed_str()), ..NOTHING }).expect("valid");
    assert_eq!(format!("{:?}", again.server), format!("{:?}", config.server));
}

#[test]
fn dev_is_loopback_only() {
    let config = load(&Case { dev: true, ..NOTHING }).expect("valid");
    assert_eq!(config.security.operator_token.expose(), "dev-operator");
    assert!(config.delivery.allow_http && !config.delivery.allow_private.is_empty());
    assert_eq!(config.origins["delivery.allow_http"], Origin::Dev);
    let told = load(&Case { dev: true, file: "[server]\nhttp_bind = \"0.0.0.0:8080\"", ..NOTHING }).expect_err("open");
    assert!(told.contains("F:2: server.http_bind = \"0.0.0.0:8080\" is not loopback"), "{told}");
}
