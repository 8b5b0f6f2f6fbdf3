"""OnlineVPO: rounds of generate, judge and learn with the policy in force, and a guard against hacking the reward."""
