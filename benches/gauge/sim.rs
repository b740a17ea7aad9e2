//! The simulator's parts that benches share with the tests: a publisher and receivers whose every
//! byte is under control, and a stock client.

#[path = "../../tests/suite/sim/media.rs"]
#[expect(dead_code, reason = "the simulator uses more of it")]
pub(crate) mod media;
#[path = "../../tests/suite/sim/params.rs"]
pub(crate) mod params;
#[path = "../../tests/suite/sim/raw.rs"]
#[expect(dead_code, reason = "the simulator uses more of it")]
pub(crate) mod raw;
#[path = "../../tests/suite/sim/stage.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
pub(crate) mod stage;
#[path = "../../tests/suite/sim/stock.rs"]
#[expect(dead_code, reason = "the simulator uses more of it")]
pub(crate) mod stock;
