//! Builds threads and lanes, starts and stops them; the only file naming both runtimes.
