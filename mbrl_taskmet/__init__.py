"""Decision-aware model learning in JAX: OMD, TaskMet and the methods around them."""
