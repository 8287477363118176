"""What answers look like to people: Rich renderables made from messages of the contract. No I/O."""
