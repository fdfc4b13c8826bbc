//! For those who come from elsewhere: what they know by another name, and what is different here. And
//! [for those who run several replicas](replicas).

pub mod api_gateway;
pub mod api_management;
pub mod nginx;
pub mod replicas;
pub mod tower_governor;
