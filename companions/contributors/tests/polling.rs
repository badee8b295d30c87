//! What polls bring.

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_comes_into_the_tables() {
    let world = World::new().await;
    world.model().populate(1, 120);
    world.sync().await;
    world.agree().await;
}
