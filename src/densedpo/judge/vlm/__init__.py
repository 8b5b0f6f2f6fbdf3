"""A vision-language model as a judge, through any server that speaks the OpenAI wire format. Needs the extra `vlm`."""
