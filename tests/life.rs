//! R1, R2, R6, R15 to R17, R19, R20, R22: a service under any events agrees with a model whose buckets are computed
//! separately.

#[path = "support/cases.rs"]
mod cases;
#[path = "support/choices.rs"]
mod choices;
#[path = "support/life.rs"]
mod life;

use proptest::prelude::*;

proptest! {
    #![proptest_config(cases::cases(5_120))]

    #[test]
    fn whatever_becomes_of_a_service_the_model_agrees(bytes in prop::collection::vec(any::<u8>(), 20..400)) {
        life::live(&bytes);
    }
}
