//! Which staged rows go to quarantine instead of the star table.

pub(crate) mod checks;
pub(crate) mod references;
pub(crate) mod rows;
