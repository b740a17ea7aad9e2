//! Who a caller is: API keys, and the room tokens that are signed with them.
//!
//! Pure: texts and the time in, an identity or one sentence out. Owned by the API, which asks on the
//! control thread, and by the command that makes tokens. Invariants: no secret and no token is ever
//! shown, neither in a log nor in an error; secrets are compared in constant time; only HS256 is
//! taken, whatever a token says of itself. What an identity may do is the API's business.

mod key;
mod token;

pub use key::{ApiKey, ApiKeys, KeyError};
pub use token::{Grants, RoomToken, TokenError};
