//! Tokens that are forged, expired or somebody else's, at every call there is.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use punchline_proto::v1;
use punchline_tests::api::{Api, Refused};
use punchline_tests::receiver::unix_seconds;
use punchline_tests::server::{OPERATOR_TOKEN, Server};
use punchline_tests::world::World;
use sha2::Sha256;
use tonic::Code;

use super::reflected::{call, filled, methods};

const MASTER_KEY: [u8; 32] = [7; 32];

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// A JWT with this header and these claims, signed under `key`.
fn jwt(header: &str, claims: &str, key: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(mac(key, signed.as_bytes()));
    format!("{signed}.{signature}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_takes_a_forged_or_expired_token() {
    let world = World::start(Server::setup().with("security.master_key", STANDARD.encode(MASTER_KEY))).await;
    let request = v1::IssueCredentialRequest { api_key: "pk-1".into(), ..Default::default() };
    world.api.admin().issue_credential(request).await.expect("issued");
    let advertiser = &world.advertiser_id;
    let claims = |expires_in: i64, advertiser: &str, key: &str| {
        let now = unix_seconds() as i64;
        format!(
            r#"{{"sub":"{key}","adv":"{advertiser}","env":"production","scopes":7,"iat":{},"exp":{}}}"#,
            now - 3_600,
            now + expires_in
        )
    };
    const HS256: &str = r#"{"typ":"JWT","alg":"HS256"}"#;
    let signing = mac(&MASTER_KEY, b"punchline access token v1");
    let good = jwt(HS256, &claims(3_600, advertiser, "pk-1"), &signing);
    let nobody = Api::new(&world.server.grpc_address(), None);
    // Made here, it is as good as one that was handed out: so what is wrong below is what is refused.
    let list = v1::ListMembersRequest::default();
    nobody.bearer(&good).members().list_members(list).await.expect("the right key signs");
    let head = world.api.head().await;

    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let other_claims = URL_SAFE_NO_PAD.encode(claims(3_600, "1000000099", "pk-1"));
    let none = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
    let (_, payload) = signed.split_once('.').expect("two parts");
    let bad = [
        ("expired", jwt(HS256, &claims(-1, advertiser, "pk-1"), &signing)),
        ("another key's", jwt(HS256, &claims(3_600, advertiser, "pk-1"), b"another key of 32 bytes length..")),
        ("the master key's", jwt(HS256, &claims(3_600, advertiser, "pk-1"), &MASTER_KEY)),
        ("of no credential", jwt(HS256, &claims(3_600, advertiser, "pk-2"), &signing)),
        ("of another advertiser's credential", jwt(HS256, &claims(3_600, "1000000099", "pk-1"), &signing)),
        ("changed", format!("{}.{other_claims}.{signature}", URL_SAFE_NO_PAD.encode(HS256))),
        ("unsigned", format!("{none}.{payload}.")),
        ("unsigned, with a signature", format!("{none}.{payload}.{signature}")),
        ("of another algorithm", jwt(r#"{"typ":"JWT","alg":"HS512"}"#, &claims(3_600, advertiser, "pk-1"), &signing)),
        ("cut", good[..good.len() - 1].to_owned()),
        ("of no end", jwt(HS256, &claims(i64::MAX / 2, advertiser, "pk-1"), &signing)),
        ("almost the operator's", OPERATOR_TOKEN[..OPERATOR_TOKEN.len() - 1].to_owned()),
        ("more than the operator's", format!("{OPERATOR_TOKEN}x")),
        ("nothing", String::new()),
        ("long", "x".repeat(5_000)),
    ];
    for method in methods(nobody.channel()).await {
        let request = filled(&method.input(), &|_| String::new(), 1);
        for (what, token) in &bad {
            let metadata = [("authorization", format!("Bearer {token}"))];
            let answered = call(&nobody, &method, &request, &metadata).await;
            let status = answered.status.unwrap_or_else(|| panic!("{} takes a token that is {what}", method.name()));
            let refused = Refused::of(&status);
            assert_eq!(refused.code, Code::Unauthenticated, "{} with one that is {what}: {refused:?}", method.name());
            assert!(answered.bytes.is_empty() && !refused.message.contains("pk-"), "{refused:?}");
        }
        let answered = call(&nobody, &method, &request, &[]).await;
        let refused = Refused::of(&answered.status.expect("nobody is let in"));
        assert_eq!(refused.reason, "CREDENTIALS_MISSING", "{}", method.name());
    }
    assert_eq!(world.api.head().await, head, "nothing was written");
}
