//! Programs that show mainspring at work; each is an example target of this package.
