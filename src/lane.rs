//! Bounded lock-free queue with an eventfd waker: the only cross-thread primitive we wrote.
