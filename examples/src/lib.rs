//! Nothing: the jobs are this package's examples.
