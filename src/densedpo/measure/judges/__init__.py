"""`measure judge`: how far one judge's answers can stand for another's, and whether they pay for stillness."""
