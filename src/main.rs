//! Arguments → Config → Node::start → wait → Node::stop → exit code.
fn main() {}
