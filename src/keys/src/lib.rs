//! Node identity, enrolment tokens, id minting and chunk naming keys.
