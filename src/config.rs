//! flags + environment + file → checked Config; nothing else reads the environment.
