//! Identifiers: the normal form of a normal form is itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use punchline_engine::id::{AdvertiserId, MemberId, Slug, SubscriptionId};
use punchline_engine::loyalty::member::Identifier;

fuzz_target!(|data: (u8, &str)| {
    let (key, value) = data;
    let key = ["phoneNumber", "email", "externalId", "", "PHONE"][usize::from(key) % 5];
    if let Ok(identifier) = Identifier::parse("identifiers[0]", key, value) {
        let again = Identifier::parse("identifiers[0]", identifier.kind.as_str(), &identifier.value);
        assert_eq!(again.as_ref(), Ok(&identifier), "{value:?}");
    }
    if let Ok(slug) = Slug::parse("id", value) {
        assert_eq!(slug.as_str(), value);
    }
    if let Ok(id) = value.parse::<AdvertiserId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(id) = value.parse::<MemberId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    let _ = value.parse::<SubscriptionId>();
});
