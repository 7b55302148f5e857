"""What is slow to run or compares with others; never run by the tests."""
