//! What nobody should get: another advertiser's things in any call, a place for ever, a word of a secret.

#[path = "abuse/bulk.rs"]
mod bulk;
#[path = "abuse/logs.rs"]
mod logs;
#[path = "abuse/reflected.rs"]
mod reflected;
#[path = "abuse/tenants.rs"]
mod tenants;
#[path = "abuse/tokens.rs"]
mod tokens;
#[path = "abuse/wire.rs"]
mod wire;
