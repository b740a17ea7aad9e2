//! Everything that is tested through the crate's public face, in one binary.

#[cfg(test)]
mod api;
#[cfg(test)]
mod e2e;
#[cfg(test)]
mod outlets;
#[cfg(test)]
mod sim;
